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

.PHONY: guest check lint inject series run
ifeq ($(KVER),all)
run:
	@$(T)/demo

guest check lint inject series:
	@$(T)/each $@ $(if $(PART),"PART=$(PART)")
else
guest:
	@$(T)/deps build
	@$(T)/vm/kernel
	@$(T)/vm/image

check:
	@$(T)/deps check
	@$(MAKE) --no-print-directory guest
	@$(T)/check/check $(PART)

lint:
	@$(T)/deps lint
	@$(T)/check/lint

inject: guest
	@$(T)/inject/run

series:
	@$(T)/deps series
	@$(T)/vm/kernel source
	@$(T)/tree/series

run: guest
	@$(T)/demo
endif

.PHONY: verify
verify:
	@$(T)/deps verify
	@tools/verification/latched-nmi/verify.sh

.PHONY: apply unapply
apply:
	@$(T)/tree/apply "$(KDIR)"

unapply:
	@$(T)/tree/apply -R "$(KDIR)"

.PHONY: clean
clean:
	rm -rf "$(O)"
