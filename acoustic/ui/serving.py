"""How the page is built and served: nothing is fetched from, or told to, any other machine."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from ..errors import AcousticError, BackendError
from ..settings import Settings, has_display, lay_uploads
from . import analyze, cards, library, profiler, review, theme, uploads
from .desk import Desk

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ..workstation import Workstation

N_PORTS = 100  # how many ports after the wanted one are tried
SWEEP_EVERY_S = 3600


def build(workstation: Workstation) -> gr.Blocks:
    """The page; without a usable model it says what is wrong instead."""
    upload_folder = lay_uploads(Path(get_upload_folder()))  # what people drop is nobody else's business
    uploads.sweep(upload_folder)
    with gr.Blocks(
        title="AcousticSense",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(SWEEP_EVERY_S, int(uploads.KEEP_S)),
    ) as page:
        try:
            status = workstation.status()
        except AcousticError as error:
            gr.HTML(cards.header({}, theme.icon_svg()), apply_default_css=False)
            gr.HTML(cards.problem(error.to_dict()), apply_default_css=False)
            return page
        head = gr.HTML(cards.header(status, theme.icon_svg()), elem_id="header", apply_default_css=False)
        desk = gr.State(Desk())  # copied for each session
        with gr.Tabs(elem_id="tabs", elem_classes="as-tabs"):
            with gr.Tab("Analyze", id="analyze"):
                analyze.build(workstation, desk, upload_folder)
            with gr.Tab("Library", id="library") as shelves:
                _if_kept(workstation, lambda: library.build(workstation, upload_folder, shelves.select))
            with gr.Tab("Review", id="review"):
                _if_kept(workstation, lambda: review.build(workstation, upload_folder))
            with gr.Tab("Profiler", id="profiler"):
                profiler.build(workstation)
        # Gradio's own schedule knows only what this process finished receiving
        page.load(lambda: _swept(upload_folder), api_visibility="private", show_progress="hidden")
        page.load(
            lambda: cards.header(workstation.status(), theme.icon_svg()),  # another backend may answer by now
            outputs=head,
            api_visibility="private",
            show_progress="hidden",
        )
    page.queue(api_open=False, default_concurrency_limit=4)
    return page


def _if_kept(workstation: Workstation, build_tab: Callable[[], object]) -> None:
    """The tab, or why the library cannot be opened: songs can be analysed without it."""
    try:
        _ = workstation.library
    except AcousticError as error:
        gr.HTML(cards.problem(error.to_dict()), apply_default_css=False)
    else:
        build_tab()


def _swept(folder: Path) -> None:
    uploads.sweep(folder)


def launch_arguments(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for `Blocks.launch`. Raises BackendError if no port is free."""
    return {
        "server_name": f"[{host}]" if ":" in (host := settings.host.strip("[]")) else host,
        "server_port": free_port(settings.host, settings.port),
        "share": False,
        "inbrowser": settings.open_browser and has_display(),
        "quiet": True,
        "show_error": False,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "ssr_mode": False,
        "max_file_size": int(settings.max_file_mb * 2**20),
        "state_session_capacity": 200,
        "theme": theme.theme(),
        "css_paths": theme.css_paths(),
        "head": theme.head(),
        "app_kwargs": {
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
            "middleware": [Middleware(SameSite, host=host, names=settings.host_names.split(","))],
        },
    }


class SameSite:
    """Refuses (403) what another web site makes a person's browser ask: a request under a name that is none of the
    page's, which such a site may have led to this machine, or one that a page of another origin sends.

    ASGI middleware. `host` is what the page listens on; where that is every address of the machine, any name may lead
    here, and only the origin is compared. `names` are further ones, as a proxy's, which pages may come from as well.
    """

    def __init__(self, app: ASGIApp, host: str, names: Iterable[str] = ()) -> None:
        self._app = app
        self._further = {_named(_host_in(name.strip())) for name in names if name.strip()}
        everywhere = _named(host) in ("0.0.0.0", "::", "")
        self._names = None if everywhere else {"localhost", "127.0.0.1", "::1", _named(host), *self._further}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_own(Headers(scope=scope)):
            refused = PlainTextResponse("This page answers only under its own address.", 403)
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        try:
            asked = urlsplit(f"//{headers.get('host', '')}")
            name = _named(asked.hostname or "")
            if self._names is not None and name not in self._names:
                return False
            if (said := headers.get("origin")) is None:
                return True
            origin = urlsplit(said)
            usual = {"http": 80, "https": 443}.get(origin.scheme)
            ports = (asked.port or usual, origin.port or usual)
        except ValueError:
            return False
        site = _named(origin.hostname or "")
        return bool(site) and (site in self._further or (site == name and ports[0] == ports[1]))


def _host_in(name: str) -> str:
    """The host of what a person may have written for it: "music.home", "music.home:8443", "https://music.home/"."""
    try:
        return urlsplit(name if "//" in name else f"//{name}").hostname or name
    except ValueError:
        return name


def _named(host: str) -> str:
    """A name or address as it is compared: in small letters, an address in its shortest form and without a zone."""
    host = host.strip("[]").split("%")[0].lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def is_open(settings: Settings) -> bool:
    """Whether other machines can reach the page."""
    host = settings.host.strip("[]")
    return not (host in ("localhost", "::1") or host.startswith("127."))


def free_port(host: str, wanted: int) -> int:
    """`wanted` or the next port that nothing listens on; 0 asks the system for any."""
    host = host.strip("[]")
    for port in range(wanted, min(wanted + N_PORTS, 65_536)) if wanted else [0]:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT is no obstacle
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise BackendError(
                    f"cannot listen on {host}: {error.strerror}", "Set `host` to an address of this machine."
                ) from error
            return int(probe.getsockname()[1])
    last = min(wanted + N_PORTS, 65_536) - 1
    raise BackendError(f"no port is free from {wanted} to {last} on {host}", "Set `port` to another number.")
