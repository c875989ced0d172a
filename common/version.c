/*
 * version.c - see version.h. The Makefile defines COMFYMUX_VERSION for this
 * file, and for no other of the programs.
 */
#include "common/version.h"

const char comfymux_version[] = COMFYMUX_VERSION;
