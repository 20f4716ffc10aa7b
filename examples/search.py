"""A page that finds pictures by a drawing, by words or by a spoken word, with an export of Alignment.

    python -m examples.search FOLDER [JOB]

FOLDER is that of prepare_stamps.py, which is written where it is not there yet. JOB is alignment-class-names, or another one of
examples/tasks that aligns pictures with something, like alignment-audio, or alignment-languages for words in other languages; it is
trained where FOLDER/results has no export of it. Then http://127.0.0.1:8765 shows the page, on this machine alone. What is searched
are all pictures of the stamps, those that the training never saw among them; the export is asked by its own script, bridge.py.
"""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from runpy import run_path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import yaml

PORT = 8765
FOUND = 8
MOST_BYTES = 8 << 20
SECONDS = 10.0
"""Of a clip."""
EXAMPLES = Path(__file__).parent


class SearchError(Exception):
    """What is asked cannot be read; the message is for people."""


class Search:
    """Pictures that lie close to what is asked.

    Parameters
    ----------
    bridge
        As the script of an export loads it.
    pictures, captions
        Files, and what is written below each.
    """

    def __init__(self, bridge: Any, pictures: Sequence[Path], captions: Sequence[str]) -> None:
        self._bridge, self.pictures, self.captions = bridge, list(pictures), list(captions)
        self._read: dict[str, Callable[[bytes], Any]] = {"image": _picture, "text": _text, "audio": self._clip}
        self.kinds = [kind for kind in self._read if hasattr(bridge, f"embed_{kind}")]
        parts = [self._vectors("image", [_picture(file.read_bytes())]) for file in self.pictures]
        self._pictures = np.concatenate(parts)

    def find(self, kind: str, asked: bytes, count: int = FOUND) -> list[dict[str, Any]]:
        """Return the nearest pictures, the nearest first: number, caption and cosine of each.

        Parameters
        ----------
        kind
            image, text or audio.
        asked
            A picture's or clip's file, or a text as UTF-8.
        count
            How many.

        Raises
        ------
        SearchError
            It cannot be read, or the export has no encoder of it.
        """
        if kind not in self.kinds:
            raise SearchError(f"the export reads {', '.join(self.kinds)} alone")
        cosines = self._pictures @ self._vectors(kind, [self._read[kind](asked)])[0]
        order = np.argsort(-cosines, kind="stable")[:count]
        return [{"picture": int(n), "caption": self.captions[n], "cosine": float(cosines[n])} for n in order]

    def _vectors(self, kind: str, samples: Sequence[Any]) -> np.ndarray:
        found: np.ndarray = getattr(self._bridge, f"embed_{kind}")(samples).numpy()
        return found

    def _clip(self, content: bytes) -> np.ndarray:
        import soundfile
        import soxr

        try:
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                sound, rate = (
                    file.read(int(SECONDS * file.samplerate), dtype="float32", always_2d=True),
                    file.samplerate,
                )
        except soundfile.LibsndfileError as error:
            raise SearchError("it is no sound that can be read: give a WAV, FLAC, OGG or MP3 file") from error
        wave: np.ndarray = soxr.resample(sound.mean(axis=1), rate, self._bridge.audio_rate)
        if len(wave) < self._bridge.audio_rate // 10:
            raise SearchError("it lasts less than a tenth of a second")
        return wave


def _picture(content: bytes) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise SearchError("it is no picture that can be read") from error
    return picture


def _text(content: bytes) -> str:
    text = content.decode("utf-8", errors="replace").strip()
    if not text:
        raise SearchError("write a word")
    return text


def server_of(search: Search, port: int) -> ThreadingHTTPServer:
    """Return a server of the page on this machine alone; port 0 for any that is free."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path).path
            number = place.removeprefix("/picture/")
            if place == "/":
                self._answer(200, (EXAMPLES / "search.html").read_bytes(), "text/html; charset=utf-8")
            elif place == "/kinds":
                self._answer(200, json.dumps(search.kinds).encode(), "application/json")
            elif number.isascii() and number.isdigit() and int(number) < len(search.pictures):
                self._answer(200, search.pictures[int(number)].read_bytes(), "image/png")
            else:
                self._answer(404, b"there is nothing here", "text/plain")

        def do_POST(self) -> None:
            asked = urlsplit(self.path)
            length = self.headers.get("Content-Length", "")
            if asked.path != "/search" or not length.isdigit() or int(length) > MOST_BYTES:
                self._answer(400, f"send at most {MOST_BYTES >> 20} MiB to /search".encode(), "text/plain")
                return
            kind = parse_qs(asked.query).get("kind", [""])[0]
            try:
                found = search.find(kind, self.rfile.read(int(length)))
            except SearchError as error:
                self._answer(400, str(error).encode(), "text/plain; charset=utf-8")
                return
            self._answer(200, json.dumps(found).encode(), "application/json")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def require_free(port: int) -> None:
    """End where something listens already: before anything is trained."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except OSError as error:
        sys.exit(f"port {port} of this machine is not free ({error}): end what listens there")


def main() -> None:
    """Train where there is no export, and serve until Ctrl-C."""
    if len(sys.argv) not in {2, 3} or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m examples.search FOLDER [JOB]")
    from examples.prepare_multilingual import write_multilingual
    from examples.prepare_stamps import prepare_all

    folder, job = Path(sys.argv[1]).resolve(), (sys.argv[2:] or ["alignment-class-names"])[0]
    manifest = EXAMPLES / "tasks" / f"{job}.yaml"
    if not manifest.exists():
        sys.exit(f"{job}: no such job in examples/tasks")
    spec = yaml.safe_load(manifest.read_text())["spec"]
    if spec["task"]["type"] != "Alignment":
        sys.exit(f"{job}: its task is {spec['task']['type']}: name a job of Alignment, like alignment-audio")
    require_free(PORT)
    prepare_all(folder)
    if any(tower["source"].endswith("/multilingual-e5-small") for tower in spec["model"]["towers"]):
        write_multilingual(folder / "models" / "multilingual-e5-small")
    result = folder / spec["output"]["destination"].removeprefix("pvc://")
    if not (result / "model" / "bridge.py").exists():
        program = "from unfreeze_api.cli import main; main()"
        subprocess.run([sys.executable, "-c", program, "run", str(manifest), "--claims", str(folder)], check=True)
    search = Search(run_path(str(result / "model" / "bridge.py"))["load"](str(result / "model")), *stamps(folder))
    with server_of(search, PORT) as server:
        print(f"http://127.0.0.1:{PORT} finds pictures, until Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def stamps(folder: Path) -> tuple[list[Path], list[str]]:
    """Return all pictures of prepare_stamps.py, with their captions."""
    place, found = folder / "data" / "stamps", dict[Path, str]()
    for split in ("train", "validation", "test"):
        rows = map(json.loads, (place / f"{split}.jsonl").read_text().splitlines())
        found |= {place / row["image"]: row["text"] for row in rows}
    return [*found], [*found.values()]


if __name__ == "__main__":
    main()
