/*
 * version.h - which release this is. In an object of its own, so that programs
 * of another version differ in nothing else: tests of upgrades link some.
 */
#ifndef COMMON_VERSION_H
#define COMMON_VERSION_H

extern const char comfymux_version[]; /* "1.2.3" */

#endif
