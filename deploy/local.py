"""A private Prefect on this machine: server, report server, two pools, two workers, the deployments. Loopback only.

    python deploy/local.py up      # `make up`: start what does not run yet; print the address of the UI
    python deploy/local.py down    # `make down`: end exactly what `up` started, and what of it was left behind

State lives in `.prefect/` in the root of the project, which keeps itself out of git. The database is SQLite there,
which Prefect itself opens with a write-ahead log and a wait of 60 s for a lock; neither can be set. NTULM_DATABASE is
the address of a PostgreSQL instead (postgresql+asyncpg://USER:PASSWORD@HOST/NAME).

NTULM_PORT moves the UI from 4200; the reports are served on the next port. NTULM_WORKERS says which workers run here:
"cpu gpu", or "cpu" where the GPU is in another machine.
"""

import asyncio
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script's own folder is all that Python adds

from deploy import services
from deploy.services import Service

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".prefect"
SITE = HOME / "site"
# What the report server shows, nothing else; pages of reports link to those of earlier runs beside them.
SERVED = {"reports": "reports", "check": "data/check", "drift": "data/drift", "data/runs": "data/runs"}
HOST = "127.0.0.1"
START_SECONDS = 180
DATABASE = "NTULM_DATABASE"
POSTGRES = "postgresql+asyncpg://"
KINDS = ["cpu", "gpu"]  # of pools, and of the workers that `up` starts


def main() -> int:
    """Do what the first argument says."""
    actions = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        sys.exit("usage: python deploy/local.py up|down")
    try:
        actions[sys.argv[1]]()
    except services.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def up() -> None:
    """Start what does not run, register pools and deployments, and say where the UI is."""
    environment = local_environment()
    os.environ.update({name: value for name, value in environment.items() if name.startswith("PREFECT")})
    HOME.mkdir(exist_ok=True)
    (HOME / ".gitignore").write_text("*\n", encoding="utf-8")
    link_site()
    server, reports, *workers = local_services()
    services.start(reports, HOME, ROOT, environment)
    services.start(server, HOME, ROOT, environment)
    wait_for_server(server)
    from deploy.registration import register  # reads Prefect's settings, so only now

    told = asyncio.run(register(ROOT, environment))
    for worker in workers:
        services.start(worker, HOME, ROOT, environment)
    print(f"UI       http://{HOST}:{port()}\nreports  http://{HOST}:{port() + 1}")
    print(f"alerts   {told}\nlogs     {HOME.name}/logs\nstop     make down")


def link_site() -> None:
    """A folder with a link to each folder that the report server shows; they may not exist yet."""
    for name, folder in SERVED.items():
        link = SITE / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT / folder)


def down() -> None:
    """End the services that `up` started, workers first, and all that they started, killed ones included."""
    for service in reversed(local_services(everything=True)):
        services.end(service, HOME)


def port() -> int:
    """The port of the UI: that of the running server, or NTULM_PORT, or 4200."""
    return services.recorded_port(HOME) or int(os.environ.get("NTULM_PORT", "4200"))


def local_services(everything: bool = False) -> list[Service]:
    """What runs, in the order of starting."""
    workers = KINDS if everything else os.environ.get("NTULM_WORKERS", " ".join(KINDS)).split()
    if not set(workers) <= set(KINDS):
        raise services.ServiceError(f"NTULM_WORKERS={' '.join(workers)}: there are {', '.join(KINDS)}")
    python = sys.executable
    prefect = [python, "-m", "prefect"]
    web = [python, "-m", "http.server", "--bind", HOST, "--directory", str(SITE), str(port() + 1)]
    server = [*prefect, "server", "start", "--host", HOST, "--port", str(port())]
    return [
        Service("server", server, port()),
        Service("reports", web, port() + 1),
        *(
            Service(f"{kind}-worker", [*prefect, "worker", "start", "--pool", f"{kind}-pool", "--type", "process",
                                       "--name", f"{kind}-worker"])
            for kind in workers
        ),
    ]  # fmt: skip


def local_environment() -> dict[str, str]:
    """Ours without any other Prefect's settings, with those of this one."""
    others = ("PREFECT", DATABASE)  # the address of the database is the server's, as Prefect's own variable
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    tools = str(Path(sys.executable).parent)
    return kept | {
        "PATH": f"{tools}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "DO_NOT_TRACK": "1",
        "NTULM_WORKSPACE": str(ROOT),
        "NTULM_REPORTS_ADDRESS": f"http://{HOST}:{port() + 1}/reports",
        "NTULM_CHECKS_ADDRESS": f"http://{HOST}:{port() + 1}/check",
        "NTULM_DRIFT_ADDRESS": f"http://{HOST}:{port() + 1}/drift",
        "PREFECT_HOME": str(HOME),
        "PREFECT_PROFILES_PATH": str(HOME / "profiles.toml"),
        "PREFECT_API_URL": f"http://{HOST}:{port()}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": database(),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_CLI_PROMPT": "false",
    }


def database() -> str:
    """Where the server keeps its runs.

    Raises:
        ServiceError: NTULM_DATABASE is no address of a PostgreSQL.
    """
    address = os.environ.get(DATABASE, "")
    if address and not address.startswith(POSTGRES):
        raise services.ServiceError(f"{DATABASE}: expected {POSTGRES}USER:PASSWORD@HOST/NAME")  # it may hold a password
    return address or f"sqlite+aiosqlite:///{HOME / 'prefect.db'}"


def wait_for_server(server: Service) -> None:
    """Wait until the server answers.

    Raises:
        ServiceError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port()}/api/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if not services.is_running(server, HOME):
                break
            time.sleep(0.5)
    raise services.ServiceError(f"the Prefect server does not answer; its log is {HOME.name}/logs/server.log")


if __name__ == "__main__":
    sys.exit(main())
