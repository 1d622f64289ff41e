from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class DevicesConfig(AppConfig):
    name = "devices"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Know the simulator's sessions, where they are wanted."""
        if settings.FLOTILLA_SIMULATED_SESSIONS:
            driver = import_module("devices.gateways.simulated_session").SimulatedSessionDriver()
            import_module("devices.gateways.registry").register(driver)
