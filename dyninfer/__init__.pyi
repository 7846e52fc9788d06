# The public names, once: lazy_loader reads them at run time, type checkers as they are.

from .bundle.calibration import Calibration as Calibration
from .bundle.folder import Bundle as Bundle
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
from .images.spec import ColorOrder as ColorOrder
from .images.spec import ImageSpec as ImageSpec
from .images.spec import Placement as Placement
from .images.spec import ResizeMode as ResizeMode
from .monitoring.alarms import Alarm as Alarm
from .monitoring.monitor import Monitor as Monitor
from .monitoring.report import AuditReport as AuditReport
from .monitoring.report import MonitorReport as MonitorReport
from .results.detections import Detections as Detections
from .results.detections import RawOutput as RawOutput
from .results.postprocess import Postprocess as Postprocess
from .routing.control import Controller as Controller
from .routing.control_law import ControllerState as ControllerState
from .routing.goals import Accuracy as Accuracy
from .routing.goals import CertifiedRisk as CertifiedRisk
from .routing.goals import FramesPerSecond as FramesPerSecond
from .routing.goals import HardFraction as HardFraction
from .routing.goals import LatencyBudget as LatencyBudget
from .routing.goals import Target as Target
from .routing.policy import AlwaysEasy as AlwaysEasy
from .routing.policy import AlwaysHard as AlwaysHard
from .routing.policy import LeaveAt as LeaveAt
from .routing.policy import Policy as Policy
from .routing.policy import Threshold as Threshold
from .routing.policy import route as route
from .routing.speed import parse_speed as parse_speed
from .runtime.detector import Detector as Detector
from .runtime.opening import load as load

__version__: str
