from importlib import import_module

from django.apps import AppConfig


class SequencesConfig(AppConfig):
    name = "sequences"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register what sequences say in a lead's history."""
        import_module("sequences.history").register_sources()
