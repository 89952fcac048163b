import asyncio

import pytest

pytest.importorskip("gradio")

HERE = "127.0.0.1:7860"


def asked(app, host, origin=None, **request):
    """The answer of an application to one request, without a network."""
    import httpx

    headers = {"Host": host} | ({"Origin": origin} if origin is not None else {})

    async def answer():
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")
        async with client:
            return await client.request(url=request.pop("url", "/"), headers=headers, **request)

    return asyncio.run(answer())


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def pages(model, uploads):
    from wafer_lab.demo.app import application

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        yield application(model, uploads, "127.0.0.1")


def guarded(address):
    from starlette.responses import PlainTextResponse

    from wafer_lab.demo.guard import Guard

    return Guard(PlainTextResponse("answered"), address)


def upload(pages, origin, name):
    file = {"files": (name, b"some bytes")}
    return asked(pages, HERE, origin, method="POST", url="/gradio_api/upload", files=file)


def test_the_page_is_served_to_its_own_names_only(pages):
    assert asked(pages, HERE, method="GET").status_code == 200
    refused = asked(pages, "evil.example:7860", "http://evil.example:7860", method="GET")
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_another_site_uploads_nothing(pages, uploads):
    for origin in ("http://evil.example", "null"):
        assert upload(pages, origin, "evil.npy").status_code == 403
    assert not [path for path in uploads.rglob("*") if path.is_file()]
    assert upload(pages, f"http://{HERE}", "mine.npy").status_code == 200
    assert [path.name for path in uploads.rglob("*") if path.is_file()] == ["mine.npy"]


def test_a_file_over_the_limit_is_refused_and_not_kept(pages, uploads, monkeypatch):
    [mount] = [route for route in pages.routes if hasattr(getattr(route, "app", None), "get_blocks")]
    blocks = mount.app.get_blocks()
    assert blocks.max_file_size == 4 * 1024**3
    monkeypatch.setattr(blocks, "max_file_size", 5)
    assert upload(pages, None, "big.npy").status_code == 413
    assert not [path for path in uploads.rglob("*") if path.is_file() and path.name != "mine.npy"]


@pytest.mark.parametrize(("listen", "status"), [("127.0.0.1", 400), ("0.0.0.0", 200)])
def test_serving_guards_by_the_address_it_listens_on(model, monkeypatch, listen, status):
    from wafer_lab.demo.app import bound, serve

    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    seen = []
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: seen.append(server.config.app))
    with bound(listen, 0) as listening:
        serve(lambda: model, listening, lambda line: None)
    assert asked(seen[0], "fab-server:8080", method="GET").status_code == status


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [
        ("127.0.0.1", "localhost", 200),
        ("127.0.0.1", "LOCALHOST:80", 200),
        ("127.0.0.1", "[::1]:7860", 200),
        ("::1", "[::1]", 200),
        ("127.0.0.2", "127.0.0.2:7860", 200),
        ("127.0.0.1", "127.0.0.2:7860", 400),
        ("127.0.0.1", "localhost.evil.example", 400),
        ("127.0.0.1", "localhost:80@evil.example:80", 400),
        ("127.0.0.1", "", 400),
        ("0.0.0.0", "fab-server:8080", 200),
        ("::", "fab-server:8080", 200),
    ],
)
def test_names(address, host, status):
    assert asked(guarded(address), host, method="GET").status_code == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("fab-server", "https://fab-server", 200),
        ("Fab-Server:8080", "http://fab-server:8080", 200),
        ("fab-server:8080", "http://fab-server:8081", 403),
        ("fab-server:8080", "http://evil.example", 403),
        ("fab-server:8080", "http://[", 403),
        ("fab-server", "", 403),
    ],
)
def test_origins_in_a_network(host, origin, status):
    assert asked(guarded("0.0.0.0"), host, origin, method="POST").status_code == status
