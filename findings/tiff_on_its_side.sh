#!/usr/bin/env bash
# Pillow 13.0.0: a grey, 16-bit, palette, RGBA or CMYK TIFF without compression whose Orientation is 5 to 8 comes out garbled where it
# is opened by its path: the file is mapped into memory with width and height in each other's place, and then turned as well. The same
# bytes opened from memory are right, and so are RGB and compressed files.
#
# One would guess that a picture does not depend on how its file is opened. It matters here, since nothing fails: what is trained on is
# noise of the right colours. Unfreeze has Pillow read such files instead of mapping them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check pillow==13.0.0 numpy

cat > try.py <<'PY'
import io

import numpy as np
from PIL import Image

values = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 251
for mode in ("L", "RGB", "RGBA", "I;16"):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(values) if mode == "I;16" else Image.fromarray(values.astype(np.uint8)).convert(mode)
    picture.save("turned.tif", exif=exif)
    shown = np.rot90(np.asarray(picture), 3)
    right = []
    for source in ("turned.tif", io.BytesIO(open("turned.tif", "rb").read())):
        with Image.open(source) as image:
            found = np.asarray(image)
        right.append(found.shape == shown.shape and bool((found == shown).all()))
    print(f"{mode}: by its path {right[0]}, from memory {right[1]}")
    assert right == [mode == "RGB", True], "it is no longer so"
PY
venv/bin/python try.py
