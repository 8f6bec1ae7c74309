"""All of it from nothing: build, train, serve, score, compare, stop. Run it in this folder: python run.py."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

HERE = Path(__file__).parent
SECONDS = 60


def say(text: str) -> None:
    """What the next thing is about."""
    print(f"\n# {text}", flush=True)


def run(*command: str) -> None:
    """Runs a program of this environment, as a process of its own, and shows what it was and what it said."""
    print(f"$ {' '.join(command)}", flush=True)
    ended = subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], cwd=HERE, check=False)  # noqa: S603
    if ended.returncode:
        sys.exit(ended.returncode)


@contextmanager
def service() -> Iterator[httpx.Client]:
    """The service in a process of its own, on a free port of this machine, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"$ uvicorn service:app --port {port}", flush=True)
    uvicorn = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(uvicorn, cwd=HERE)  # noqa: S603
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
            wait(client, process)
            yield client
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """Until the service answers."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(process.returncode)
        try:
            client.get("/health")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"The service does not answer within {SECONDS} seconds.")


def show(answer: httpx.Response) -> None:
    """A request and what came back."""
    request, body = answer.request, answer.json()
    print(f"{request.method} {request.url.path} {request.content.decode()}".rstrip())
    several = isinstance(body, list) or all(isinstance(value, dict) for value in body.values())
    lines = (body if isinstance(body, list) else body.items()) if several else [body]
    print(answer.status_code, *(json.dumps(line) for line in lines), sep="\n    ")


def main() -> None:
    """The whole loop, once."""
    say("1,469,307 purchases become two features: offline as Delta tables, online in Redis.")
    run("mlforge", "build", "--online")
    say("Labels with their times, the features as they were then, and a regression: who stays away for 28 days?")
    run("python", "train.py")
    say("What a training set without timestamp= promises, and what of that is left in service.")
    run("python", "leak.py")
    say("The service, which reads the features from Redis.")
    with service() as client:
        show(client.get("/health"))
        say("One household, one that has not been seen since summer, one that does not exist; then all at once.")
        for household in (1, 10, 9999):
            show(client.get(f"/households/{household}"))
        show(client.post("/scores", json={"household_ids": [1, 10, 9999]}))
        say("Every household, online and over HTTP, against what the training set says for the same instant.")
        run("python", "parity.py", str(client.base_url))
    say("Stopped. Next: the features as Dagster assets, with the model as an asset after them. In this folder:")
    programs = os.path.relpath(Path(sys.executable).parent, HERE)
    print(f"# {programs}/pip install dagster dagster-webserver")
    print(f"# {programs}/dagster dev -f dagster_definitions.py")


if __name__ == "__main__":
    main()
