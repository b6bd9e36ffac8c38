"""From records to tables and figures; imports neither torch nor hydra."""
