"""The way from a config to one or many finished runs: config, construction, training, the Hydra application."""
