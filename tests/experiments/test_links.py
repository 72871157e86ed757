"""The check of external links, without a network."""

import io
import urllib.error

from experiments.tools import links


def test_links_of_pages_are_collected():
    pages = links.external_links()
    assert "docs/comparison/fairdd.md" in pages["https://github.com/zqhang/FairDD"]
    assert not any("OWNER" in link or link.endswith((".", ",", ")")) for link in pages)


def test_a_link_that_rejects_head_is_read(monkeypatch):
    methods = []

    def urlopen(request, timeout):
        methods.append(request.method)
        if request.method == "HEAD" or "absent" in request.full_url:
            raise urllib.error.HTTPError(request.full_url, 404, "Not Found", {}, io.BytesIO())
        return io.BytesIO()

    monkeypatch.setattr(links.urllib.request, "urlopen", urlopen)
    assert links.problem("https://example.org/page") is None and methods == ["HEAD", "GET"]
    assert "404" in links.problem("https://example.org/absent")
