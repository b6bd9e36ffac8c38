"""The claims ledger: each of the paper's claims is a query over kept records with a decision rule fixed in advance.

``conf/claims.yaml`` states the claims. A check of a claim says which runs speak to it (``where``), what they must have learned
to count (``given``: an undertrained run proves nothing), what is measured, and in which bounds it must lie. Runs that
differ in nothing but the seed form a config. A config agrees if at least two thirds of its seeds do: outcomes are
bimodal, so a mean would hide them. A claim is

    contradicted   a config with enough seeds does not agree
    not yet run    a check has fewer configs with enough seeds than it asks for
    reproduced     else

Configs that do not count, for want of seeds or of training, are shown on the claim's page. A contradicted claim is a result.
"""
