# The public names, once: lazy_loader reads them at run time, type checkers as they are.

from .alarms import Alarm as Alarm
from .bundle import Bundle as Bundle
from .calibration import Calibration as Calibration
from .control import Controller as Controller
from .control_law import ControllerState as ControllerState
from .detector import Detector as Detector
from .errors import BackendUnavailable as BackendUnavailable
from .errors import BundleError as BundleError
from .errors import CheckpointError as CheckpointError
from .errors import ConfigError as ConfigError
from .errors import DyninferError as DyninferError
from .errors import EngineBuildError as EngineBuildError
from .errors import EngineRunError as EngineRunError
from .errors import ExportError as ExportError
from .errors import InputError as InputError
from .errors import MissingExtra as MissingExtra
from .errors import PolicyError as PolicyError
from .errors import RouterError as RouterError
from .errors import VerificationError as VerificationError
from .imagespec import ColorOrder as ColorOrder
from .imagespec import ImageSpec as ImageSpec
from .imagespec import Placement as Placement
from .imagespec import ResizeMode as ResizeMode
from .monitor import Monitor as Monitor
from .monitor_report import AuditReport as AuditReport
from .monitor_report import MonitorReport as MonitorReport
from .opening import load as load
from .policy import AlwaysEasy as AlwaysEasy
from .policy import AlwaysHard as AlwaysHard
from .policy import LeaveAt as LeaveAt
from .policy import Policy as Policy
from .policy import Threshold as Threshold
from .policy import route as route
from .postprocess import Postprocess as Postprocess
from .speed import parse_speed as parse_speed
from .targets import Accuracy as Accuracy
from .targets import CertifiedRisk as CertifiedRisk
from .targets import FramesPerSecond as FramesPerSecond
from .targets import HardFraction as HardFraction
from .targets import LatencyBudget as LatencyBudget
from .targets import Target as Target
from .types import Detections as Detections
from .types import RawOutput as RawOutput

__version__: str
