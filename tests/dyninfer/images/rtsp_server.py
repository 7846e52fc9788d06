"""An RTSP server on loopback, of GStreamer: ``python rtsp_server.py PORT KIND``.

Run by a Python that has PyGObject, usually the system's. KIND is one of the names below; PORT 0 is
any. The port is printed when it listens. Clips are a moving pattern, 25 frames a second.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODER = "x264enc tune=zerolatency key-int-max=5 speed-preset=ultrafast"
PAY = "rtph264pay name=pay0 pt=96 config-interval=-1"
RAW = "video/x-raw,width={0},height={1},framerate={2}/1"
KINDS = {
    "steady": ((64, 48, 25), ""),
    "larger": ((96, 80, 25), ""),
    "fast": ((64, 48, 1000), ""),
    "changing": ((64, 48, 25), ""),
    "corrupt": ((64, 48, 25), "breakmydata probability=0.001 ! "),
}


def change_size(media: GstRtspServer.RTSPMedia) -> bool:
    """Twice a second, to and fro."""
    caps = media.get_element().get_by_name("caps")
    width = caps.get_property("caps").get_structure(0).get_int("width")[1]
    size = (96, 80, 25) if width == 64 else (64, 48, 25)
    caps.set_property("caps", Gst.Caps.from_string(RAW.format(*size)))
    return True


Gst.init(None)
size, broken = KINDS[sys.argv[2]]
factory = GstRtspServer.RTSPMediaFactory()
factory.set_shared(True)
factory.set_launch(
    f"( videotestsrc is-live=true pattern=ball ! videoscale ! capsfilter name=caps "
    f"caps={RAW.format(*size)} ! {ENCODER} ! {broken}{PAY} )"
)
if sys.argv[2] == "changing":
    factory.connect("media-configure", lambda _, media: GLib.timeout_add(500, change_size, media))
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
server.get_mount_points().add_factory("/live", factory)
assert server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
