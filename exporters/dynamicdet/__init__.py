"""DynamicDet (Lin et al., CVPR 2023): checkpoints of Dy-YOLOv7, -X, -W6 and their relatives."""
