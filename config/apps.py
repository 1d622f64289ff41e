from importlib import import_module

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell messaging what it cannot ask: which devices have somebody in a sequence. Have log-ins written down."""
        predicate = import_module("sequences.expecting").devices_with_enrolments
        import_module("messaging.expecting").expect(predicate)
        import_module("config.audit").listen()
