"""From a config to a finished run, one or many: config, construction, training, the Hydra application."""
