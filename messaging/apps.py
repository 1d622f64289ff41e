from importlib import import_module

from django.apps import AppConfig


class MessagingConfig(AppConfig):
    name = "messaging"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and what segments may ask about messages."""
        import_module("messaging.checks")
        import_module("messaging.engagement").register()
