// Intrusive doubly linked list: membership without allocation, removal in constant time.
//
// An object may stand in one list per Hook member. Owns nothing: the objects belong to whoever made them. What may end
// objects while it goes through them says each(), or takes a Walk if it goes on in a later event; next() is for what
// changes nothing.
#pragma once

#include <cstddef>

namespace pgpool::core
{

template <class T> struct Hook {
	T *previous = nullptr;
	T *next = nullptr;
	bool linked = false;
};

template <class T, Hook<T> T::*hook> class List
{
	struct Place { // of a Walk
		T *next;
		Place *outer; // of one that began before
	};

public:
	bool empty() const { return first_ == nullptr; }
	size_t size() const { return size_; }
	T *front() const { return first_; }
	T *back() const { return last_; }
	static T *next(const T *item) { return (item->*hook).next; }

	// On the way through a list whose items come and go meanwhile. The list outlives it.
	class Walk
	{
	public:
		explicit Walk(List &list) : list_(list), place_{list.first_, list.walks_} { list.walks_ = &place_; }
		~Walk()
		{
			Place **at = &list_.walks_;
			while (*at != &place_)
				at = &(*at)->outer;
			*at = place_.outer;
		}
		Walk(const Walk &) = delete;
		Walk &operator=(const Walk &) = delete;
		T *take() // nullptr: that was the last one
		{
			T *item = place_.next;
			place_.next = item ? next(item) : nullptr;
			return item;
		}

	private:
		List &list_;
		Place place_;
	};

	// f may take out any item, its own and the next one, too; what is put in meanwhile may not be seen.
	template <class F> void each(F f)
	{
		Walk walk(*this);
		while (T *item = walk.take())
			f(item);
	}

	void push_back(T *item) { link(item, last_, nullptr); }
	void push_front(T *item) { link(item, nullptr, first_); }
	void remove(T *item)
	{
		Hook<T> &h = item->*hook;
		if (!h.linked)
			return;
		for (Place *p = walks_; p; p = p->outer) {
			if (p->next == item)
				p->next = h.next;
		}
		(h.previous ? (h.previous->*hook).next : first_) = h.next;
		(h.next ? (h.next->*hook).previous : last_) = h.previous;
		h = Hook<T>();
		size_--;
	}

private:
	void link(T *item, T *before, T *after)
	{
		Hook<T> &h = item->*hook;
		h.previous = before;
		h.next = after;
		h.linked = true;
		(before ? (before->*hook).next : first_) = item;
		(after ? (after->*hook).previous : last_) = item;
		size_++;
	}

	T *first_ = nullptr;
	T *last_ = nullptr;
	Place *walks_ = nullptr;
	size_t size_ = 0;
};

} // namespace pgpool::core
