"""Stages in half precision and 8-bit integers: conversion, calibration, and what it costs."""
