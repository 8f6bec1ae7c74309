"""What features are computed with in Dagster: the resource, the translator, and what executors are told."""

from typing import Any

import dagster as dg
import pytest

from dagster_shop import Shop
from mlforge import DefinitionError
from mlforge.engines import PolarsEngine, SparkEngine, spilled
from mlforge_dagster import AssetData, EngineResource, MlforgeTranslator, StepSettings, build_definitions
from sparks import local_session


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The memory limits of the builds that had one."""
    found: list[int] = []
    whole = spilled.Spilled.frames
    monkeypatch.setattr(spilled.Spilled, "frames", lambda self, limit: (found.append(limit), whole(self, limit))[1])
    return found


class Ours(MlforgeTranslator):
    """One feature is large."""

    def get_step(self, data: AssetData) -> StepSettings:
        if data.kind != "offline" or data.feature is None or data.feature.name != "spend":
            return super().get_step(data)
        pod = {"container_config": {"resources": {"requests": {"memory": "4Gi"}}}}
        return StepSettings(memory_limit="3GB", op_tags={"dagster-k8s/config": pod}, pool="large")


def build(shop: Shop, **settings: Any) -> dg.Definitions:
    definitions = build_definitions(shop.defs(), **settings)
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=shop.instance).success
    return definitions


def test_the_resource_says_how_much_memory_a_build_takes(shop: Shop, limits: list[int]) -> None:
    build(shop, engine=EngineResource(memory_limit="2GB"))
    assert set(limits) == {2_000_000_000}
    assert len(limits) == len(shop.defs().features)


def test_the_environment_and_a_run_may_say_it(shop: Shop, limits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY", "4GB")
    resource = EngineResource(memory_limit=dg.EnvVar("MEMORY"))
    build(shop, engine=resource)
    assert set(limits) == {4_000_000_000}
    assert resource.get_memory_limit() == "4GB"
    limits.clear()
    shop.save({0: 1.0})
    definitions = build_definitions(shop.defs(), engine=EngineResource.configure_at_launch())
    job = definitions.resolve_implicit_global_asset_job_def()
    config = {"resources": {"engine": {"config": {"engine": "polars", "memory_limit": "5GB"}}}}
    assert job.execute_in_process(instance=shop.instance, run_config=config).success
    assert set(limits) == {5_000_000_000}


def test_the_translator_says_it_for_one_feature_and_what_its_step_asks_for(shop: Shop, limits: list[int]) -> None:
    definitions = build(shop, engine=EngineResource(memory_limit="2GB"), translator=Ours())
    assert sorted(set(limits)) == [2_000_000_000, 3_000_000_000]
    assert limits.count(3_000_000_000) == 1
    job = definitions.resolve_implicit_global_asset_job_def()
    (large,) = [node for node in job.graph.node_defs if "dagster-k8s/config" in node.tags]
    assert large.name.endswith("spend")
    assert large.pools == {"large"}  # type: ignore[attr-defined]


@pytest.mark.slow
def test_spark_computes_what_a_run_asks_for(shop: Shop) -> None:
    expected = {name: shop.defs().build([name])[0].rows for name in shop.defs().features}
    with local_session() as session:
        shop.save({0: 10.0, 40: 5.0, 65: 3.0})
        build(shop, engine=SparkEngine(session))
        # Three features, each of which was a job of Spark's at least.
        assert len(session.sparkContext.statusTracker().getJobIdsForGroup()) >= len(expected)
    assert {name: shop.defs().store.require(name).row_count for name in expected} == expected


def test_what_cannot_be_is_one_line() -> None:
    assert EngineResource().get_engine() is None
    assert isinstance(EngineResource(engine="polars").get_engine(), PolarsEngine)
    for made in (EngineResource, StepSettings):
        with pytest.raises(DefinitionError, match="'spork' is no engine; did you mean 'spark'"):
            made(engine="spork")  # type: ignore[arg-type]
        with pytest.raises(DefinitionError, match="less than a build needs"):
            made(memory_limit="500MB")
    with pytest.raises(DefinitionError, match="master of an EngineResource is about Spark"):
        EngineResource(master="local[2]").get_engine()
    with pytest.raises(DefinitionError, match="has no field 'memory'; did you mean 'memory_limit'"):
        EngineResource(memory="2GB")
    with pytest.raises(DefinitionError, match="'GONE' is not set"):
        EngineResource(memory_limit=dg.EnvVar("GONE")).get_memory_limit()
    shown = repr(EngineResource(engine="spark", conf={"spark.hadoop.fs.s3a.secret.key": "S3CRET"}).get_engine())
    assert "S3CRET" not in shown
