"""The Python inside: settings, bootstrap, data, training, pipelines."""
