from importlib import import_module

from django.apps import AppConfig


class SequencesConfig(AppConfig):
    name = "sequences"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register what sequences say in a lead's history, and what their messages go by in the list of messages."""
        import_module("sequences.history").register_sources()
        import_module("sequences.groups").register_groups()
