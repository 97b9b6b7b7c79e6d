/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * advice.c: advice and what is asked about it: arguments are checked on the
 * application's thread, the rest is the driver's. No locks.
 */
#include "runtime/private.h"

_Static_assert(GPUSVM_MIXED == DRIVER_VALUE_MIXED, "mixed");

/* Does this advice have a location, and does where fit? *ret: the driver's. */
static int advice_location(struct gpusvm *svm, enum gpusvm_advice advice, int64_t value,
			   struct gpusvm_location where, int *ret)
{
	*ret = DRIVER_NONE;
	if (advice == GPUSVM_ACCESSED_BY) {
		if (where.type != GPUSVM_LOCATION_DEVICE && where.type != GPUSVM_LOCATION_FD)
			return -EINVAL;
		return location_check(svm, where, ret);
	}
	if (advice != GPUSVM_PREFERRED_LOCATION || !value)
		return 0;
	switch (where.type) {
	case GPUSVM_LOCATION_NONE:
		return 0;
	case GPUSVM_LOCATION_FAULTING:
		*ret = DRIVER_FAULTING;
		return 0;
	default:
		return location_check(svm, where, ret);
	}
}

static int advise_call(struct gpusvm_event *event)
{
	return gpusvm_driver_advise(event->svm->driver, event->u.advice.start,
				    event->u.advice.end, event->u.advice.advice,
				    event->u.advice.value, event->u.advice.location);
}

int gpusvm_advise(struct gpusvm *svm, const void *p, size_t len, enum gpusvm_advice advice,
		  int64_t value, struct gpusvm_location where)
{
	struct gpusvm_event *event;
	int err = svm_check(svm);

	if (err)
		return err;
	event = event_new(svm);
	if (!event)
		return -ENOMEM;
	event->u.advice.advice = advice;
	event->u.advice.value = value;
	err = advice_location(svm, advice, value, where, &event->u.advice.location);
	if (!err)
		err = interval_outward(p, len, &event->u.advice.start, &event->u.advice.end);
	if (!err)
		err = call(event, advise_call, TASK_SLOW);
	event_put(event);
	return err;
}

static int advice_get_call(struct gpusvm_event *event)
{
	return gpusvm_driver_advice_get(event->svm->driver, event->u.advice.start,
					event->u.advice.end, event->u.advice.advice,
					&event->u.advice.value, &event->u.advice.location);
}

static struct gpusvm_location location_out(int location)
{
	switch (location) {
	case DRIVER_MIXED:
		return (struct gpusvm_location){ GPUSVM_LOCATION_MIXED, -1, 0, -1 };
	case DRIVER_FAULTING:
		return gpusvm_faulting();
	default:
		return location_of(location);
	}
}

int gpusvm_advice_get(struct gpusvm *svm, const void *p, size_t len, enum gpusvm_advice advice,
		      int64_t *value, struct gpusvm_location *where)
{
	bool by_device = advice == GPUSVM_ACCESSED_BY;
	struct gpusvm_event *event;
	s64 got = 0;
	int location = DRIVER_NONE, err = svm_check(svm);

	if (err)
		return err;
	if ((!value && !where) || (by_device && (!value || !where)))
		return -EINVAL;
	event = event_new(svm);
	if (!event)
		return -ENOMEM;
	event->u.advice.advice = advice;
	event->u.advice.location = DRIVER_NONE;
	if (by_device)
		err = advice_location(svm, advice, 1, *where, &event->u.advice.location);
	if (!err)
		err = interval_outward(p, len, &event->u.advice.start, &event->u.advice.end);
	if (!err)
		err = call(event, advice_get_call, TASK_SLOW);
	if (!err) {
		got = event->u.advice.value;
		location = event->u.advice.location;
	}
	event_put(event);
	if (err)
		return err;
	if (value)
		*value = got;
	if (where && !by_device)
		*where = location_out(location);
	return 0;
}
