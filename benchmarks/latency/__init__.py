"""What ``dyninfer bench`` measures, and the record it leaves.

``scenarios`` says what is run and makes a share of the images hard, ``slices`` times some calls,
``rounds`` runs all scenarios in turns, ``statistics`` and ``summary`` make figures of them,
``take`` puts everything into the ``record``.
"""
