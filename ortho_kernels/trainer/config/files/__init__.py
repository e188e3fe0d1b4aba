"""Hydra's search path; recipes are the YAML files beside this one."""
