"""Bring your own data: a folder or archive of any known layout, made a data set of this project.

``build`` does it: recognise the layout (``layouts``), check every picture and label as Ultralytics
does (``pictures``, ``yolo``), draw the splits that are missing (``splits``), write the version, and
account for every file and box (``account``).
"""
