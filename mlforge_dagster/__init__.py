"""mlforge in Dagster: every feature an asset, with what is online of it downstream."""

from mlforge_dagster.automation import feature_job, feature_schedule
from mlforge_dagster.component import FeatureStoreComponent
from mlforge_dagster.definitions import build_definitions, feature_assets
from mlforge_dagster.engine import EngineResource, StepSettings
from mlforge_dagster.ops import write_batch_op
from mlforge_dagster.partitions import partition_schedule
from mlforge_dagster.report import report, reporter
from mlforge_dagster.resources import RedisStoreResource
from mlforge_dagster.sensor import online_reconcile_sensor
from mlforge_dagster.translator import AssetData, MlforgeTranslator

__all__ = [
    "AssetData",
    "EngineResource",
    "FeatureStoreComponent",
    "MlforgeTranslator",
    "RedisStoreResource",
    "StepSettings",
    "build_definitions",
    "feature_assets",
    "feature_job",
    "feature_schedule",
    "online_reconcile_sensor",
    "partition_schedule",
    "report",
    "reporter",
    "write_batch_op",
]
