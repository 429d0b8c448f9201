package sandbox

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterSyscalls forbids what no scan does, for all threads (seccomp(2)). It also sets
// no_new_privs for them, which the kernel wants first.
func filterSyscalls() error {
	if auditArch == 0 {
		return errors.New("no filter for this architecture")
	}
	program := filter(os.Getpid())
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog)))
	if errno == 0 && thread != 0 {
		return errors.New("a thread has a filter of its own")
	}
	return asError(errno)
}

// Where struct seccomp_data keeps what a filter looks at. Arguments are 64 bits wide;
// all that is compared fits the lower half, which comes first here.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

const (
	allow  = unix.SECCOMP_RET_ALLOW
	kill   = unix.SECCOMP_RET_KILL_PROCESS
	forbid = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// newNamespaces are the flags of clone that a thread could have too.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// filter is the program: a list of what is not allowed. A list of what is would have to
// follow every change of the Go runtime, and the namespaces, Landlock and the limits
// stand behind this one.
func filter(pid int) []unix.SockFilter {
	p := assembler{
		load(offsetArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		ret(kill),
		load(offsetNumber),
	}
	if foreignSyscalls != 0 {
		// x32 numbers its calls from here on, and is of the same architecture.
		p = append(p, jump(unix.BPF_JGE, foreignSyscalls, 0, 1), ret(kill))
	}
	for _, number := range forbidden() {
		p = append(p, jump(unix.BPF_JEQ, number, 0, 1), ret(forbid))
	}
	// Its flags are in memory, where no filter sees them. Without it, clone is used.
	p = append(p, jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), ret(absent))
	// Threads are needed, processes and namespaces are not.
	p = p.when(unix.SYS_CLONE,
		load(offsetArgs),
		jump(unix.BPF_JSET, newNamespaces, 1, 0),
		jump(unix.BPF_JSET, unix.CLONE_THREAD, 1, 0),
		ret(forbid), ret(allow))
	// Limits of its own are set, and must remain readable; another process's are not its.
	p = p.when(unix.SYS_PRLIMIT64,
		load(offsetArgs), jump(unix.BPF_JEQ, 0, 1, 0), ret(forbid), ret(allow))
	// Go interrupts its own threads.
	p = p.when(unix.SYS_TGKILL,
		load(offsetArgs), jump(unix.BPF_JEQ, uint32(pid), 1, 0), ret(forbid), ret(allow))
	// Memory that is shared, and of no file, is not counted by RLIMIT_DATA.
	p = p.when(unix.SYS_MMAP,
		load(offsetArgs+8*3),
		jump(unix.BPF_JSET, unix.MAP_ANONYMOUS, 0, 2),
		jump(unix.BPF_JSET, unix.MAP_SHARED, 0, 1),
		ret(forbid), ret(allow))
	// The parent's death is the child's.
	p = p.when(unix.SYS_PRCTL,
		load(offsetArgs), jump(unix.BPF_JEQ, unix.PR_SET_PDEATHSIG, 0, 1), ret(forbid), ret(allow))
	return append(p, ret(allow))
}

// forbidden are system calls that fail whatever their arguments.
func forbidden() []uint32 {
	return append(forbiddenHere(),
		// programs, and other processes
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
		unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE, unix.SYS_KCMP,
		unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO,
		unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_PIDFD_GETFD,
		unix.SYS_SETPGID, unix.SYS_SETSID, unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET,
		unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETAFFINITY,
		unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
		// sockets, and what makes system calls in another's name
		unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_IO_SETUP,
		// memory that outlives or escapes the limits
		unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET, unix.SYS_USERFAULTFD,
		unix.SYS_MLOCK, unix.SYS_MLOCK2, unix.SYS_MLOCKALL,
		unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
		// the file system as a whole, and its roundabout ways
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
		unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
		unix.SYS_OPEN_TREE_ATTR, unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT, unix.SYS_LISTNS,
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_INOTIFY_INIT1,
		unix.SYS_MKNODAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_QUOTACTL, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
		// users, namespaces, the kernel
		unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
		unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET, unix.SYS_PERSONALITY,
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
		unix.SYS_REBOOT, unix.SYS_SYSLOG, unix.SYS_ACCT, unix.SYS_VHANGUP,
		unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
	)
}

// assembler is a program in the making.
type assembler []unix.SockFilter

// when adds statements for one system call, the last of which must return.
func (a assembler) when(number uint32, then ...unix.SockFilter) assembler {
	a = append(a, jump(unix.BPF_JEQ, number, 0, uint8(len(then))))
	return append(a, then...)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// jump skips so many statements where the comparison holds, and so many where not.
func jump(how uint16, value uint32, holds, not uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, K: value, Jt: holds, Jf: not}
}

func ret(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}
