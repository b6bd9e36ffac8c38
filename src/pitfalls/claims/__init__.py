"""The claims ledger: each of the paper's claims is a query over kept records with a decision rule fixed in advance.

``conf/claims.yaml`` states the claims. A check of a claim selects runs (``where``) and has a condition that a run must meet to
count (``given``), because an undertrained run proves nothing. It also names a measure and the bounds that the measure must
lie in. Runs that differ in nothing but the seed form a config. A config agrees if at least two thirds of its seeds do. A mean
over seeds would hide bimodal outcomes. A claim is

    contradicted   a config with enough seeds does not agree
    not yet run    a check has fewer configs with enough seeds than it needs
    reproduced     otherwise

Configs with too few seeds or too little training do not count. The claim's page lists them. A contradicted claim is a result.
"""
