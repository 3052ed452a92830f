"""Data only: the schemas that offline_schemas.py loads; NOTICE says whose they are."""
