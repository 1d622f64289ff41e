"""Backup and restore: everything an installation is, sealed in one folder, and brought back without a second send."""
