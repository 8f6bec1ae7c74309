"""Scores households over HTTP: uvicorn service:app. Train first: python train.py."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import polars as pl
from definitions import defs
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from model import load
from pydantic import BaseModel, Field

import mlforge as mlf

MODEL = load()
STORE = defs.require_online_store()

HouseholdId = Annotated[int, Field(ge=0, lt=2**63)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connections are made by the first read, and closed at the end in the event loop that has read."""
    yield
    await STORE.aclose()


app = FastAPI(title="Who stays away?", lifespan=lifespan)


class Households(BaseModel):
    """Whom to score."""

    household_ids: Annotated[list[HouseholdId], Field(min_length=1, max_length=1_000)]


class Score(BaseModel):
    """The probability that a household stays away for 28 days; null where nothing is online for it."""

    household_id: int
    stays_away: float | None
    at: datetime


class Online(BaseModel):
    """What is online of a feature: as of when, and beside it the version that the model was trained on."""

    as_of: datetime | None = None
    version: str | None = None
    trained_on: str | None
    entities: int = 0
    complete: bool = False


@app.get("/households/{household_id}")
async def score(household_id: HouseholdId) -> Score:
    """One household."""
    [found] = await scores(Households(household_ids=[household_id]))
    if found.stays_away is None:
        raise HTTPException(404, f"Nothing is online for household {household_id}.")
    return found


@app.post("/scores")
async def scores(asked: Households) -> list[Score]:
    """Many households, in the order in which they are asked for, in one round trip to Redis."""
    entities = pl.DataFrame({"household_id": asked.household_ids})
    values = await defs.aget_online_features(MODEL.features, entities)
    now = defs.now()
    found = zip(asked.household_ids, MODEL.score(values, pl.lit(now)), strict=True)
    return [Score(household_id=household, stays_away=score, at=now) for household, score in found]


@app.get("/health")
def health(response: Response) -> dict[str, Online]:
    """What is online; 503 where something is missing or a sync has not finished."""
    found = {}
    for name, trained_on in MODEL.versions.items():
        status = STORE.status(name)
        found[name] = Online(trained_on=trained_on)
        if status is not None:
            found[name] = Online(
                as_of=status.as_of,
                version=status.version,
                trained_on=trained_on,
                entities=status.rows,
                complete=status.state == "complete",
            )
    if not all(each.complete for each in found.values()):
        response.status_code = 503
    return found


@app.exception_handler(RequestValidationError)
async def misunderstood(request: Request, error: RequestValidationError) -> JSONResponse:
    """What is wrong with a request; without what was sent, since a NaN in it could not be sent back."""
    wrong = [{"loc": each["loc"], "msg": each["msg"]} for each in error.errors()]
    return JSONResponse({"detail": wrong}, status_code=422)


@app.exception_handler(mlf.MlforgeError)
async def unavailable(request: Request, error: mlf.MlforgeError) -> JSONResponse:
    """Redis cannot be reached, or holds other columns than those that the model was trained on."""
    return JSONResponse({"detail": str(error)}, status_code=503)
