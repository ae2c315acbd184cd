"""Image files of every kind the decoders read, small, with what Pillow's convert("RGB") makes of them.

  make_image_golden.py [--out tests/golden/vision]

Writes files/<name> and decoded.safetensors: <name> uint8 HWC, and <name>/upright after ImageOps.exif_transpose where that differs.
Most PNG, GIF and BMP kinds are built byte by byte here, because Pillow cannot write them. Files that Pillow refuses are listed in
refused.json. Made with Pillow 13.0.0.
"""
import argparse, io, json, pathlib, shutil, struct, zlib

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

W, H = 21, 14
FILES = {}


def picture(w=W, h=H, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([x * 255 // w, y * 255 // h, (x * 7 + y * 13) % 256], -1)
    a[: h // 3, : w // 3] = rng.integers(0, 256, (h // 3, w // 3, 3))
    return a.astype(np.uint8)


def save(name, im, **kw):
    b = io.BytesIO()
    im.save(b, name.rsplit(".", 1)[1].replace("jpg", "jpeg"), **kw)
    FILES[name] = b.getvalue()


def exif(orientation, endian="<"):
    e = Image.Exif()
    e.endian = endian
    e[0x0112] = orientation
    e[0x010F] = "maker"
    return e


def jpegs():
    im = Image.fromarray(picture())
    for n, sub in (("444", 0), ("422", 1), ("420", 2)):
        save(f"baseline_{n}.jpg", im, quality=85, subsampling=sub)
        save(f"progressive_{n}.jpg", im, quality=60, subsampling=sub, progressive=True)
    save("restart.jpg", im, quality=70, restart_marker_blocks=1)
    save("rgb.jpg", im, quality=90, keep_rgb=True)
    save("gray_progressive.jpg", im.convert("L"), progressive=True)
    save("row.jpg", Image.fromarray(picture(33, 1)), subsampling=2)
    save("column.jpg", Image.fromarray(picture(1, 33)), subsampling=2)
    save("cmyk.jpg", im.convert("CMYK"), quality=92)
    save("cmyk_progressive.jpg", im.convert("CMYK"), quality=92, progressive=True)
    b = bytearray(FILES["cmyk.jpg"])
    at = b.index(b"Adobe")
    assert b[at + 11] == 0
    b[at + 11] = 2  # the same planes, now said to be YCCK
    FILES["ycck.jpg"] = bytes(b)
    for o in range(1, 9):
        save(f"exif{o}.jpg", im, quality=75, exif=exif(o, "<" if o % 2 else ">"))
    save("exif_zero.jpg", im, quality=75, exif=exif(0))
    b = FILES["baseline_444.jpg"]
    sof = b.index(b"\xff\xc0")
    FILES["two_components.jpg"] = b[: sof + 9] + b"\x02" + b[sof + 10 :]
    FILES["twelve_bits.jpg"] = b[: sof + 4] + b"\x0c" + b[sof + 5 :]


# ---- PNG ------------------------------------------------------------------------------------------------------------
def chunk(tag, data):
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def pack_row(values, depth):
    if depth == 16:
        return values.astype(">u2").tobytes()
    if depth == 8:
        return values.astype(np.uint8).tobytes()
    bits = "".join(format(int(v), f"0{depth}b") for v in values)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def png(values, colour, depth, interlace=0, extra=b"", tail=b"", split=False):
    """values (h, w, channels), or (h, w); rows use the filters none and sub in turn."""
    v = values.reshape(values.shape[0], values.shape[1], -1)
    h, w, n = v.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)] if interlace else [(0, 0, 1, 1)]
    raw, bpp = b"", max(1, n * depth // 8)
    for y0, x0, dy, dx in passes:
        part = v[y0::dy, x0::dx]
        if part.size == 0:
            continue
        for i, row in enumerate(part):
            b = pack_row(row.reshape(-1), depth)
            if i % 2:
                b = bytes((c - (b[k - bpp] if k >= bpp else 0)) & 255 for k, c in enumerate(b))
            raw += bytes([i % 2]) + b
    z = zlib.compress(raw, 9)
    idat = chunk(b"IDAT", z[:20]) + chunk(b"IDAT", b"") + chunk(b"IDAT", z[20:]) if split else chunk(b"IDAT", z)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + head + extra + idat + tail + chunk(b"IEND", b"")


def pngs():
    rng = np.random.default_rng(1)
    p = picture()
    for i in (0, 1):
        s = "_adam7" if i else ""
        for d in (1, 2, 4, 8, 16):
            FILES[f"gray{d}{s}.png"] = png(rng.integers(0, 1 << d, (H, W)), 0, d, i)
        for d in (1, 2, 4, 8):
            plte = chunk(b"PLTE", rng.integers(0, 256, 3 << d).astype(np.uint8).tobytes())
            trns = chunk(b"tRNS", bytes([0, 128])) if i else b""
            FILES[f"palette{d}{s}.png"] = png(rng.integers(0, 1 << d, (H, W)), 3, d, i, plte + trns)
        for name, colour, n in (("rgb", 2, 3), ("la", 4, 2), ("rgba", 6, 4)):
            FILES[f"{name}8{s}.png"] = png(rng.integers(0, 256, (H, W, n)), colour, 8, i)
            FILES[f"{name}16{s}.png"] = png(rng.integers(0, 65536, (H, W, n)), colour, 16, i)
    gray16 = rng.integers(0, 400, (H, W))
    FILES["gray16_dark.png"] = png(gray16, 0, 16)
    FILES["palette_short.png"] = png(rng.integers(0, 256, (H, W)), 3, 8, 0, chunk(b"PLTE", bytes(range(30))))
    FILES["rgb_trns.png"] = png(p, 2, 8, 0, chunk(b"tRNS", b"\0\1\0\2\0\3"))
    FILES["gray_trns.png"] = png(p[..., 0], 0, 8, 0, chunk(b"tRNS", b"\0\7"))
    FILES["gray1_trns.png"] = png(p[..., 0] & 1, 0, 1, 0, chunk(b"tRNS", b"\0\1"))
    FILES["gamma.png"] = png(p, 2, 8, 0, chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sBIT", b"\5\6\5") + chunk(b"bKGD", b"\0\1" * 3), split=True)
    for w, h in ((1, 1), (1, 9), (9, 1), (3, 2), (5, 5)):
        FILES[f"tiny{w}x{h}_adam7.png"] = png(picture(w, h), 2, 8, 1)
    tiff = b"Exif\0\0"
    FILES["exif6.png"] = png(p, 2, 8, 0, chunk(b"eXIf", exif(6).tobytes()[len(tiff) :]))
    im = Image.fromarray(p)
    save("animated.png", im, save_all=True, append_images=[Image.fromarray(p[::-1].copy())])
    FILES["icc_text.png"] = png(p, 2, 8, 0, chunk(b"iCCP", b"x\0\0" + zlib.compress(b"not a profile")) + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 9000)))


# ---- WebP -----------------------------------------------------------------------------------------------------------
def webps():
    p = picture()
    alpha = np.dstack([p, np.tile(np.arange(W, dtype=np.uint8) * 12, (H, 1))])
    im, rgba = Image.fromarray(p), Image.fromarray(alpha)
    save("lossy.webp", im, quality=60)
    save("lossy_odd.webp", Image.fromarray(picture(17, 9)), quality=30)
    save("lossless.webp", im, lossless=True)
    save("lossless_alpha.webp", rgba, lossless=True, exact=True)
    save("lossless_alpha_cleared.webp", rgba, lossless=True)
    save("lossy_alpha.webp", rgba, quality=70)
    save("animated.webp", im, save_all=True, append_images=[Image.fromarray(255 - p)], lossless=True)
    save("exif8.webp", im, lossless=True, exif=exif(8))
    b = FILES["lossless.webp"]
    vp8l = b[12:]
    u24 = lambda v: struct.pack("<I", v)[:3]
    anmf = u24(3) + u24(2) + u24(W - 1) + u24(H - 1) + u24(50) + b"\0" + vp8l  # at (6, 4) on a larger canvas
    body = (b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + u24(W + 9) + u24(H + 7) + b"ANIM" + struct.pack("<IIH", 6, 0xFF112233, 0)
            + b"ANMF" + struct.pack("<I", len(anmf)) + anmf)
    FILES["animated_offset.webp"] = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


# ---- GIF ------------------------------------------------------------------------------------------------------------
def lzw(indices, bits):
    """Codes of bits + 1 only: a clear code comes before they would grow."""
    out, acc, n = b"", 0, 0
    codes = []
    for i, v in enumerate(indices):
        if i % ((1 << bits) - 2) == 0:
            codes.append(1 << bits)
        codes.append(int(v))
    codes.append((1 << bits) + 1)
    for c in codes:
        acc |= c << n
        n += bits + 1
        while n >= 8:
            out, acc, n = out + bytes([acc & 255]), acc >> 8, n - 8
    out += bytes([acc]) if n else b""
    return bytes([bits]) + b"".join(bytes([len(out[i : i + 255])]) + out[i : i + 255] for i in range(0, len(out), 255)) + b"\0"


def gif(screen, frames, palette=None, background=0, version=b"89a"):
    """frames: (x, y, indices (h, w), local palette, transparent index, interlace, bits)."""
    size = lambda p: len(p).bit_length() - 2
    flat = lambda p: bytes(v for c in p for v in c)
    out = b"GIF" + version + struct.pack("<HHBBB", *screen, 0x80 | size(palette) if palette else 0, background, 0) + (flat(palette) if palette else b"")
    for x, y, a, local, clear, interlace, bits in frames:
        if clear is not None:
            out += b"!\xf9\4" + bytes([1, 5, 0, clear]) + b"\0"
        out += b"!\xfe\5hello\0"
        flags = (0x80 | size(local) if local else 0) | (0x40 if interlace else 0)
        out += b"," + struct.pack("<HHHHB", x, y, a.shape[1], a.shape[0], flags) + (flat(local) if local else b"")
        rows = [r for s, d in ((0, 8), (4, 8), (2, 4), (1, 2)) for r in range(s, a.shape[0], d)] if interlace else range(a.shape[0])
        out += lzw(np.concatenate([a[r] for r in rows]), bits)
    return out + b";"


def gifs():
    rng = np.random.default_rng(2)
    colours = lambda n: [tuple(int(v) for v in c) for c in rng.integers(0, 256, (n, 3))]
    ix = lambda w, h, n: rng.integers(0, n, (h, w))
    g, loc = colours(16), colours(8)
    FILES["plain.gif"] = gif((W, H), [(0, 0, ix(W, H, 16), None, None, 0, 4)], g)
    FILES["v87.gif"] = gif((W, H), [(0, 0, ix(W, H, 16), None, None, 0, 4)], g, version=b"87a")
    FILES["interlaced.gif"] = gif((W, H), [(0, 0, ix(W, H, 16), None, None, 1, 4)], g)
    FILES["local_palette.gif"] = gif((W, H), [(0, 0, ix(W, H, 8), loc, 2, 0, 3)], g)
    FILES["local_only.gif"] = gif((W, H), [(0, 0, ix(W, H, 8), loc, None, 0, 3)])
    FILES["no_palette.gif"] = gif((W, H), [(0, 0, ix(W, H, 128), None, None, 0, 7)])
    FILES["gray_palette.gif"] = gif((W, H), [(0, 0, ix(W, H, 16), None, None, 0, 4)], [(i, i, i) for i in range(16)])
    FILES["offset.gif"] = gif((W, H), [(5, 3, ix(8, 7, 16), None, None, 0, 4)], g, background=3)
    FILES["offset_transparent.gif"] = gif((W, H), [(5, 3, ix(8, 7, 16), None, 6, 0, 4)], g, background=3)
    FILES["beyond_screen.gif"] = gif((10, 9), [(4, 5, ix(12, 8, 16), None, None, 1, 4)], g)
    FILES["index_beyond_palette.gif"] = gif((W, H), [(0, 0, ix(W, H, 64), None, None, 0, 6)], g)
    FILES["animated_local.gif"] = gif((W, H), [(0, 0, ix(W, H, 8), loc, 1, 0, 3), (2, 2, ix(5, 5, 16), None, 0, 0, 4)], g)
    FILES["no_picture.gif"] = gif((W, H), [], g)
    save("pillow_animated.gif", Image.fromarray(picture()).quantize(32), save_all=True, append_images=[Image.fromarray(picture(seed=3)).quantize(8)])


# ---- BMP ------------------------------------------------------------------------------------------------------------
def bmp(w, h, bits, rows, palette=b"", compression=0, header=40, masks=b"", colours=0, offset=None, pad=4):
    """rows: the pixel data. h < 0: top-down."""
    if header == 12:
        dib = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        dib = struct.pack("<IiiHHIIIIII", header, w, h, 1, bits, compression, len(rows), 2835, 2835, colours, 0)
        if header > 40:
            dib += (masks + bytes(header))[: header - 40]
            masks = b""
    at = 14 + len(dib) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at if offset is None else offset) + dib + masks + palette + rows


def bmps():
    rng = np.random.default_rng(3)
    pad = lambda b: b + bytes(-len(b) % 4)
    bgrx = lambda n: b"".join(bytes(rng.integers(0, 256, 3).tolist()) + b"\0" for _ in range(n))
    for bits in (1, 4, 8):
        rows = b"".join(pad(pack_row(rng.integers(0, 1 << bits, W), bits)) for _ in range(H))
        FILES[f"index{bits}.bmp"] = bmp(W, H, bits, rows, bgrx(1 << bits))
        FILES[f"index{bits}_top_down.bmp"] = bmp(W, -H, bits, rows, bgrx(1 << bits))
    r8 = b"".join(pad(rng.integers(0, 9, W).astype(np.uint8).tobytes()) for _ in range(H))
    FILES["index8_short_palette.bmp"] = bmp(W, H, 8, r8, bgrx(5), colours=5)
    FILES["index8_no_offset.bmp"] = bmp(W, H, 8, r8, bgrx(256), offset=0)
    FILES["index8_offset_at_palette.bmp"] = bmp(W, H, 8, r8, bgrx(256), offset=54)
    FILES["index8_os2.bmp"] = bmp(W, H, 8, r8, b"".join(bytes(rng.integers(0, 256, 3).tolist()) for _ in range(256)), header=12)
    gray = b"".join(bytes([i, i, i, 0]) for i in range(256))
    FILES["gray8.bmp"] = bmp(W, H, 8, r8, gray)
    words = lambda: b"".join(pad(rng.integers(0, 65536, W).astype("<u2").tobytes()) for _ in range(H))
    m = lambda *v: struct.pack("<%dI" % len(v), *v)
    FILES["rgb555.bmp"] = bmp(W, H, 16, words())
    FILES["rgb565.bmp"] = bmp(W, H, 16, words(), compression=3, masks=m(0xF800, 0x7E0, 0x1F))
    FILES["rgb555_fields.bmp"] = bmp(W, -H, 16, words(), compression=3, masks=m(0x7C00, 0x3E0, 0x1F), header=52)
    three = b"".join(pad(rng.integers(0, 256, 3 * W).astype(np.uint8).tobytes()) for _ in range(H))
    FILES["rgb24.bmp"] = bmp(W, H, 24, three)
    FILES["rgb24_os2.bmp"] = bmp(W, H, 24, three, header=12)
    FILES["rgb24_v5.bmp"] = bmp(W, -H, 24, three, header=124)
    four = rng.integers(0, 256, 4 * W * H).astype(np.uint8).tobytes()
    FILES["rgb32.bmp"] = bmp(W, H, 32, four)
    FILES["rgba32_fields.bmp"] = bmp(W, H, 32, four, compression=3, header=56, masks=m(0xFF, 0xFF00, 0xFF0000, 0xFF000000))
    FILES["bgra32_v4.bmp"] = bmp(W, -H, 32, four, compression=3, header=108, masks=m(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    FILES["xbgr32_fields.bmp"] = bmp(W, H, 32, four, compression=3, masks=m(0xFF000000, 0xFF0000, 0xFF00))
    FILES["zero_masks.bmp"] = bmp(W, H, 32, four, compression=3, header=56, masks=m(0, 0, 0, 0))
    rle8 = (b"\x05\x03\x00\x06\1\2\3\4\5\6\x0a\x07\0\0" + b"\x15\x01\0\0" + b"\0\2\x04\x02" + b"\0\x03\1\2\3\0" + b"\x03\x02\x20\x05\0\0"
            + b"".join(bytes([W, i % 9]) + b"\0\0" for i in range(9)) + b"\0\1")
    FILES["rle8.bmp"] = bmp(W, H, 8, rle8, bgrx(16), compression=1, colours=16)
    FILES["rle8_gray.bmp"] = bmp(W, H, 8, rle8, gray, compression=1)
    rle4 = b"".join(b"\x05\x12\0\x05\x34\x56\x70\0" + b"\x0b\xab\0\0" for _ in range(H)) + b"\0\1"
    FILES["rle4.bmp"] = bmp(W, H, 4, rle4, bgrx(16), compression=2)
    FILES["rle8_early_end.bmp"] = bmp(W, H, 8, b"\x15\x01\0\0\0\1", bgrx(16), compression=1, colours=16)
    FILES["embedded_png.bmp"] = bmp(W, H, 24, FILES["rgb8.png"], compression=5)
    FILES["bits2.bmp"] = bmp(W, H, 2, three, bgrx(4))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2] / "tests/golden/vision")
    out = ap.parse_args().out
    shutil.rmtree(out / "files", ignore_errors=True)
    (out / "files").mkdir(parents=True)
    for make in (jpegs, pngs, webps, gifs, bmps):
        make()
    decoded, refused = {}, []
    for name, data in sorted(FILES.items()):
        (out / "files" / name).write_bytes(data)
        try:
            im = Image.open(io.BytesIO(data))
            decoded[name] = np.array(im.convert("RGB"))
            turned = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
            if turned.shape != decoded[name].shape or not np.array_equal(turned, decoded[name]):
                decoded[name + "/upright"] = turned
        except Exception as e:
            refused.append(name)
            print("refused", name, type(e).__name__, e)
    save_file(decoded, out / "decoded.safetensors")
    (out / "refused.json").write_text(json.dumps(refused, indent=1) + "\n")
    print(len(FILES), "files,", sum(map(len, FILES.values())), "bytes")


main()
