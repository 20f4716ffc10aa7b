"""The page that finds pictures: what is asked is read, the nearest come first, and nothing else is served."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from examples.search import MOST_BYTES, Search, SearchError, require_free, server_of
from tests.trainer.browser import tab

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def as_file(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def search(tmp_path):
    """Pictures of one colour each, by a bridge that knows colours."""

    def of_pictures(pictures):
        means = torch.tensor(np.stack([np.array(one.convert("RGB")).mean(axis=(0, 1)) for one in pictures]))
        return torch.nn.functional.normalize(means.float(), dim=1)

    def of_texts(texts):
        return torch.nn.functional.normalize(torch.tensor([COLOURS[text] for text in texts]).float(), dim=1)

    def of_clips(clips):
        return of_texts([[*COLOURS][round(float(np.abs(clip).max()) * 2)] for clip in clips])

    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    bridge = SimpleNamespace(embed_image=of_pictures, embed_text=of_texts, embed_audio=of_clips, audio_rate=16000)
    return Search(bridge, [tmp_path / f"{name}.png" for name in COLOURS], [f"a {name} thing" for name in COLOURS])


def test_the_nearest_come_first_whatever_is_asked(search):
    assert search.kinds == ["image", "text", "audio"]
    drawing = as_file(Image.new("RGB", (5, 5), (10, 200, 60)))
    assert [one["caption"] for one in search.find("image", drawing)] == ["a green thing", "a blue thing", "a red thing"]
    assert search.find("text", b" blue ", 1) == [{"picture": 2, "caption": "a blue thing", "cosine": 1.0}]
    sound = io.BytesIO()
    soundfile.write(sound, np.full(22050, 0.5), 22050, format="WAV")
    assert search.find("audio", sound.getvalue(), 1)[0]["caption"] == "a green thing"


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("text", b"  ", "write a word"),
        ("image", b"no picture", "no picture that can be read"),
        ("audio", b"no sound", "no sound that can be read"),
        ("video", b"", "reads image, text, audio alone"),
    ],
)
def test_what_cannot_be_read_is_said(search, kind, asked, said):
    with pytest.raises(SearchError, match=said):
        search.find(kind, asked)


def test_a_page_of_this_machine_serves_pictures_and_answers(search):
    with server_of(search, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        try:
            page = urlopen(f"{at}/").read()
            assert b"by a drawing" in page
            assert b"[hidden] { display: none; }" in page, "a section is laid out even where it is hidden"
            assert json.loads(urlopen(f"{at}/kinds").read()) == search.kinds
            assert urlopen(f"{at}/picture/1").read() == search.pictures[1].read_bytes()
            found = json.loads(urlopen(f"{at}/search?kind=text", data=b"red").read())
            assert found[0]["caption"] == "a red thing"
            for path, data in (
                ("picture/3", None),
                ("picture/../x", None),
                ("search?kind=text", b" "),
                ("other", b"red"),
            ):
                with pytest.raises(HTTPError) as error:
                    urlopen(f"{at}/{path}", data=data)
                assert error.value.code in {400, 404}
            with pytest.raises((HTTPError, OSError)):
                urlopen(f"{at}/search?kind=text", data=b" " * (MOST_BYTES + 1))
        finally:
            server.shutdown()


def test_a_port_that_is_taken_ends_the_command_at_once(search):
    with server_of(search, 0) as server, pytest.raises(SystemExit, match="is not free"):
        require_free(server.server_port)


@pytest.mark.slow
async def test_people_find_pictures_by_words_and_by_a_drawing(search, tmp_path):
    search.kinds.remove("audio")

    async def seen(one, act, condition):
        waits = f"new Promise((done) => setInterval(() => {{ if ({condition}) done(); }}, 20))"
        await one.value(act)
        async with asyncio.timeout(20):
            await one.ask("Runtime.evaluate", expression=waits, awaitPromise=True)

    first = "document.querySelector('figcaption')?.textContent == "
    with server_of(search, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            async with tab(tmp_path / "profile") as one:
                await one.ask("Page.navigate", url=f"http://127.0.0.1:{server.server_port}/")
                await one.event("Page.loadEventFired")
                words = "by('text').value = 'blue'; by('words').requestSubmit()"
                await seen(one, words, f"{first} 'a blue thing'")
                drawing = "pen.fillStyle = '#0f0'; pen.fillRect(0, 0, 224, 224); by('draw').click()"
                await seen(one, drawing, f"{first} 'a green thing'")
                nothing = "by('text').value = ' '; by('words').requestSubmit()"
                await seen(one, nothing, "by('said').textContent.includes('write a word')")
                await seen(one, "", "!by('spoken').checkVisibility()")
        finally:
            server.shutdown()
