"""What ``dyninfer bench`` measures, and the record it leaves.

``scenarios`` says what is run, ``forced`` makes a share of the images hard, ``slices`` times some
calls, ``warm`` and ``rounds`` run all scenarios in turns, ``spans``, ``statistics`` and ``summary``
make figures of them, ``take`` puts everything into the ``record``.
"""
