"""The online store as a Dagster resource: in runs, in the sensor, in ops and in scripts."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from dagster_shop import ANN, Shop, looked
from mlforge import DefinitionError
from mlforge.online import RedisStore
from mlforge_dagster import (
    RedisStoreResource,
    build_definitions,
    online_reconcile_sensor,
    write_batch_op,
)
from servers import RedisServer


@pytest.mark.parametrize("kind", ["resource", "store"])
def test_a_resource_says_where_to_go_online(
    kind: str, tmp_path: Path, redis_server: RedisServer, redis_prefix: str
) -> None:
    resource = RedisStoreResource(host=redis_server.host, port=redis_server.port, prefix=redis_prefix)
    shop = Shop(tmp_path, None)
    given = resource if kind == "resource" else resource.get_store()
    definitions = build_definitions(shop.defs(), online_store=given)
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=shop.instance).success
    assert resource.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
    assert resource.read_batch("spend", [ANN, {"user": "2"}])[1] is None
    resource.write_batch("hand", pl.DataFrame({"user": [1], "x": [2]}), ["user"])
    assert resource.read("hand", ANN) == {"x": 2}
    resource.get_store().close()


def test_a_job_composed_by_hand_has_an_op_that_goes_online(shop: Shop) -> None:
    defs = shop.defs()
    write = write_batch_op(defs, "spend")

    @dg.op(out=dg.Out(dg.Nothing))
    def build() -> None:
        defs.build(["spend"])

    @dg.job
    def publish() -> None:
        write(start=build())

    result = publish.execute_in_process(instance=shop.instance)
    (output,) = [event for event in result.all_events if event.is_successful_output and event.step_key == "write_spend"]
    assert output.step_output_data.metadata["written"].value == 1
    assert shop.read("spend") == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}


def test_an_unreachable_redis_fails_the_run_with_a_line_and_the_next_one_repairs(shop: Shop) -> None:
    with RedisServer() as server:
        gone = RedisStore(server.host, server.port, connect_timeout=1, timeout=1)
    result = shop.run("spend", "spend_online", raises=False, online_store=gone)
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "cannot be reached" in str(failure.step_failure_data.error)
    assert shop.run("spend_online").success


def test_a_resource_does_not_show_what_is_secret() -> None:
    resource = RedisStoreResource(password="s3cret", ssl_options={"ssl_password": "s3cret"})
    assert "s3cret" not in repr(resource) + str(resource)


def test_environment_variables_work_in_runs_in_the_sensor_and_in_a_script(
    tmp_path: Path, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(requirepass="s3cret") as server:
        monkeypatch.setenv("REDIS_PASSWORD", "s3cret")
        monkeypatch.setenv("REDIS_PORT", str(server.port))
        online = RedisStoreResource(
            host=server.host,
            port=dg.EnvVar.int("REDIS_PORT"),
            password=dg.EnvVar("REDIS_PASSWORD"),
            prefix=redis_prefix,
        )
        shop = Shop(tmp_path, None)
        sensor = online_reconcile_sensor(shop.defs(), online_store=online)
        definitions = build_definitions(shop.defs(), online_store=online, sensors=[sensor])

        shop.defs().build()
        assert looked(sensor, shop, definitions) == {"spend_online", "last_online", "double_online"}
        assert definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=shop.instance).success
        assert looked(sensor, shop, definitions) == "All is online."
        assert online.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
        online.get_store().close()


@pytest.mark.parametrize(("value", "said"), [(None, "is not set"), ("a", "is no whole number")])
def test_an_environment_variable_that_leads_nowhere_is_one_line(
    value: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_PORT", raising=False)
    if value is not None:
        monkeypatch.setenv("REDIS_PORT", value)
    with pytest.raises(DefinitionError, match=f"'REDIS_PORT' {said}"):
        RedisStoreResource(port=dg.EnvVar.int("REDIS_PORT")).get_store()


def test_a_wrong_password_fails_the_run_with_a_line_that_does_not_show_it(tmp_path: Path) -> None:
    with RedisServer(requirepass="s3cret") as server:
        online = RedisStoreResource(host=server.host, port=server.port, password="wr0ng")
        shop = Shop(tmp_path, None)
        result = shop.run("spend", "spend_online", raises=False, online_store=online.get_store())
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "password" in str(failure.step_failure_data.error)
    assert "wr0ng" not in str(failure)


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(DefinitionError, match="A RedisStoreResource has no field 'hots'; did you mean 'host'"):
        RedisStoreResource(hots="redis.internal")
