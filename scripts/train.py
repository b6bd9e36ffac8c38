"""Train one run, or a sweep with -m: ``python scripts/train.py objective=teacherless task=g2_3 seed=0``.

``--help`` lists every choice and key. The run's folder under ``runs/`` holds config, metrics, checkpoint and record.
"""

from pitfalls.experiment.hydra_app import main

if __name__ == "__main__":
    main()
