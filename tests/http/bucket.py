"""A public bucket of files to pull from: what S3 answers to a listing and to a request for a file, in its XML, with its pages."""
import hashlib
import http.server
import threading
import urllib.parse
from xml.sax.saxutils import escape

from hub import Answers


class Handler(Answers):
    def do_GET(self):
        self.server.bucket.serve(self)


class Bucket:
    """files: {key: bytes}. `page` names at most are told at once; `listing`, where it is set, is answered in place of one; `cut`: {key: bytes
    after which a connection ends, once}; `fail`: {key: status}."""

    def __init__(self, files, page=1000):
        self.files, self.page = files, page
        self.requests, self.listing, self.cut, self.fail, self.hold = [], None, {}, {}, None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.bucket = self
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def fetched(self):
        return [path for path, _, _ in self.requests if "?" not in path]

    def serve(self, handler):
        path, _, query = handler.path.partition("?")
        self.requests.append((handler.path, handler.headers.get("Range"), handler.headers.get("Authorization")))
        if path == "/":
            return handler.answer(200, self.listing if self.listing is not None else self.tell(query), Content_Type="application/xml")
        key = urllib.parse.unquote(path[1:])
        if key in self.fail or key not in self.files:
            return handler.answer(self.fail.get(key, 404), b"<Error><Code>NoSuchKey</Code></Error>")
        self.serve_bytes(handler, key)

    def serve_bytes(self, handler, key):
        data, asked = self.files[key], handler.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - begin))
        handler.end_headers()
        body = data[begin:self.cut.pop(key, len(data))]
        handler.wfile.write(body)
        if self.hold:
            self.hold(handler)
        if len(body) < len(data) - begin:
            handler.close_connection = True

    def tell(self, query):
        asked = dict(urllib.parse.parse_qsl(query))
        assert asked.pop("list-type") == "2"
        prefix, delimiter, begin = asked.pop("prefix"), asked.pop("delimiter", None), asked.pop("continuation-token", None)
        assert not asked
        names = sorted({prefix + key[len(prefix):].split(delimiter)[0] + delimiter if delimiter and delimiter in key[len(prefix):] else key
                        for key in self.files if key.startswith(prefix)})
        first = int(begin.removeprefix("from+/=")) if begin else 0
        more = first + self.page < len(names)
        rows = "".join(self.row(name) for name in names[first:first + self.page])
        return ('<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>datasets</Name>'
                f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(names)}</KeyCount><MaxKeys>1000</MaxKeys>"
                f"<IsTruncated>{str(more).lower()}</IsTruncated>{rows}"
                + (f"<NextContinuationToken>from+/={first + self.page}</NextContinuationToken>" if more else "") + "</ListBucketResult>").encode()

    def row(self, name):
        if name not in self.files:
            return f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
        data = self.files[name]
        return (f"<Contents><Key>{escape(name)}</Key><LastModified>2025-03-01T00:00:00.000Z</LastModified><ETag>&quot;"
                f"{hashlib.md5(data).hexdigest()}&quot;</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>")
