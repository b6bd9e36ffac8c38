"""Tables, figures and the page, made from records. This folder imports neither torch nor hydra."""
