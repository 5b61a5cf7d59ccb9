"""Commands that ask the stores themselves."""

from service.model.errors import ConfigurationError
from service.settings import PREFIX, Settings, load_settings


def shared_stores() -> Settings:
    """The settings, which name both stores. Raises ConfigurationError: embedded ones are their service's own."""
    settings = load_settings()
    urls = {"REDIS_URL": settings.redis_url, "POSTGRES_URL": settings.postgres_url}
    if missing := [PREFIX + name for name, url in urls.items() if url is None]:
        raise ConfigurationError(f"{' and '.join(missing)}: needed: logs are read where their service keeps them")
    return settings
