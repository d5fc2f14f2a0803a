# SPDX-License-Identifier: GPL-2.0
#
# Builds, boots, tests and installs the latched NMI handler. Each target is a
# script under tools/; this file only says which ones and in which order.

KVER	?= 6.12
LINUX	?=
O	?= build
ACCEL	?= tcg
SMP	?= 2
V	?=
PART	?=
TEST	?=
DEEP	?=
export KVER LINUX ACCEL SMP V TEST DEEP
export O := $(abspath $(O))

T := tools/latched-nmi

.PHONY: help
help:
	@$(T)/help

.PHONY: guest
guest:
	@$(T)/deps build
	@$(T)/vm/kernel
	@$(T)/vm/image

.PHONY: run check lint
run: guest
	@$(T)/demo

check:
	@$(T)/deps check
	@$(MAKE) --no-print-directory guest
	@$(T)/check/check $(PART)

lint:
	@$(T)/deps lint
	@$(T)/check/lint

.PHONY: inject verify
inject: guest
	@$(T)/inject/run

verify:
	@$(T)/deps verify
	@tools/verification/latched-nmi/verify.sh

.PHONY: apply unapply
apply:
	@$(T)/tree/apply "$(KDIR)"

unapply:
	@$(T)/tree/apply -R "$(KDIR)"

.PHONY: series
series:
	@$(T)/deps series
	@$(T)/vm/kernel source
	@$(T)/tree/series

.PHONY: clean
clean:
	rm -rf "$(O)"
