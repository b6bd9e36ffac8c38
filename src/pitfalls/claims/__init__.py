"""The claims ledger: each of the paper's claims is a query over kept records with a decision rule fixed in advance.

``conf/claims.yaml`` states the claims. A check of a claim says which runs speak to it (``where``), what they must have learned
to count (``given``: an undertrained run proves nothing), what is measured, and in which bounds it must lie. Runs are
grouped into cells (equal but for the seed). A cell agrees if at least two thirds of its seeds do: outcomes are
bimodal, so a mean would hide them. A claim is

    contradicted   a cell with enough seeds does not agree
    not yet run    a check has fewer cells with enough seeds than it asks for
    reproduced     else

Cells that do not count, for want of seeds or of training, are shown all the same. A contradicted claim is a result.
"""
