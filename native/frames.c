#include "voiced_native.h"
