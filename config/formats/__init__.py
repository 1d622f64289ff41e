"""How the admin writes days and times (Django's ``FORMAT_MODULE_PATH``)."""
