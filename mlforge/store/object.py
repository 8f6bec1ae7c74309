"""The offline store in a bucket: S3, Google Cloud Storage, Azure."""

from collections.abc import Mapping

from mlforge.errors import DefinitionError
from mlforge.files import cause
from mlforge.source import without_credentials
from mlforge.store.base import Store

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss")


class ObjectStore(Store):
    """Feature tables below a prefix of a bucket, `<url>/<feature>`.

    Builds of one feature do not queue here, as they do in a folder: of two that commit at once one is overtaken, and
    computes again, several times at most. S3 itself sees to it (a commit is a conditional put), as do the others.

    Args:
        url: `s3://bucket/prefix`, `gs://...`, `az://...`.
        storage_options: What the provider's environment variables do not say, in the names that delta-rs and Polars
            share: `aws_access_key_id`, `aws_region`, `aws_endpoint_url`, `google_service_account`, ... By default
            everything is taken from the environment. Secrets among the values are never shown.

    Raises:
        DefinitionError: It is no such URL, has credentials in it, or an option is no text.
    """

    def __init__(self, url: str, storage_options: Mapping[str, str] | None = None) -> None:
        scheme, there, place = url.partition("://") if isinstance(url, str) else ("", "", "")
        if not there or scheme not in SCHEMES or not place.strip("/"):
            raise DefinitionError(
                f"{url!r} is no place in a bucket: write s3://bucket/prefix, gs:// or az://; for a folder there is "
                f"LocalStore."
            )
        if (shown := without_credentials(url)) != url:
            raise DefinitionError(f"{shown!r} has credentials in it: give them in storage_options or the environment.")
        for name, value in (storage_options or {}).items():
            if not isinstance(value, str):
                raise DefinitionError(f"The storage option {name!r} is no text: write {str(value).lower()!r}.")
        super().__init__(url, storage_options)

    def __repr__(self) -> str:
        names = sorted(self._options or ())
        return f"ObjectStore({self._location!r}{f', options: {names}' if names else ''})"

    def _why(self, error: Exception) -> str:
        return cause(error, self._options)
