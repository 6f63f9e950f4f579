// Package prefault, when imported, has the memory that every start of whisk touches mapped by a few system calls instead of
// some 500 page faults: the program's code and data (madvise(2), MADV_POPULATE_READ and MADV_POPULATE_WRITE, kernel 5.14) and
// its heap, which is put where one huge page can hold it (MADV_HUGEPAGE, if the machine has transparent huge pages enabled or
// on request). Where the kernel does not help, nothing is lost. A page fault costs a fraction of a microsecond on bare metal
// and some 20 µs in a virtual machine with shadow page tables, where a start of whisk is mostly page faults.
//
// Packages are initialised in the order of their paths as soon as what they import is (Go 1.21). This one imports nothing that
// has to be, so it is among the first, before those that fill the heap; the system call is reached by assembly for that reason.
// For the same reason it is where the garbage collector is told to wait: see debug.SetGCPercent for going back.
package prefault
