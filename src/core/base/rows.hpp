// The objects of a list as rows of a view, some at a time.
//
// Owns the place in the list. Between two calls objects may come (they are seen, unless the last one was) and end (they
// are not): a view of very many takes neither their memory at once nor everybody's time. What an object shows is said
// by fill(row, object), which stands beside it. Must not know what the objects are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pgpool::core
{

template <class List, class R> class Rows
{
public:
	using Row = R;
	explicit Rows(List &list) : list_(list), walk_(list) {}

	// Not more than `most`; fewer only at the end.
	std::vector<Row> next(size_t most)
	{
		std::vector<Row> rows;
		rows.reserve(std::min(most, list_.size()));
		while (rows.size() < most) {
			auto *item = walk_.take();
			if (!item)
				break;
			rows.emplace_back();
			fill(rows.back(), *item);
		}
		return rows;
	}

private:
	List &list_;
	typename List::Walk walk_;
};

} // namespace pgpool::core
