"""What C{twistd llmproxy} does: options in, a service out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python.usage import Options as TwistedOptions

from llmproxy.base.collector import uncollected

with uncollected():
    from llmproxy.base.monotonic import use_monotonic_clock
    from llmproxy.base.own_threads import spare_address_space
    from llmproxy.config.load import SettingsError, check_report, environment_warnings
    from llmproxy.config.model import Settings
    from llmproxy.config.settings_file import SettingsFile
    from llmproxy.observability import log_output
    from llmproxy.observability.log_stream import LogFile, QueuedStream, SyslogStream, patient
    from llmproxy.observability.redaction import Redactor
    from llmproxy.process.hot_restart import HotRestart, succeed
    from llmproxy.process.last_resort import end_within
    from llmproxy.process.orphans import reap_orphans
    from llmproxy.process.service_manager import ServiceManager, notifying
    from llmproxy.process.signals import Signals
    from llmproxy.process.start_checks import start_problems
    from llmproxy.process.start_failures import check_files, prepare_files, sentence
    from llmproxy.process.successor import predecessor
    from llmproxy.process.twistd_options import AlreadyRunning, PidFile, StartReport, User, check_pid_file, foreground
    from llmproxy.process.worker import appointed, worker_count
    from llmproxy.store.errors import InvalidStoreURL
    from llmproxy.wire.descriptors import raise_soft_limit

if TYPE_CHECKING:
    from llmproxy.process.supervisor import Supervisor

_log = Logger()


class Options(TwistedOptions):
    """The command line of C{twistd llmproxy}."""

    parent: Any = None  # twistd puts its own there

    synopsis = "[--config FILE] [--listen ENDPOINT]… [--check]"
    longdesc = "A transparent, governed reverse proxy daemon for LLM APIs."
    optFlags: ClassVar = [["check", None, "check the settings, say what is wrong with them, and exit (0, or 78)"]]
    lists = ("listen", "admin-listen", "metrics-listen")
    optParameters: ClassVar = [["config", "c", "etc/apis.yaml", "the settings file"]]

    def __init__(self) -> None:
        TwistedOptions.__init__(self)
        for flag in self.lists:
            self[flag] = []

    def opt_listen(self, endpoint: str) -> None:
        """where to listen, such as tcp:8080:interface=127.0.0.1; may be given more than once; instead of the file's"""
        self["listen"].append(endpoint)

    def opt_admin_listen(self, endpoint: str) -> None:
        """an own listener for /manage and /admin, which then exist on no other"""
        self["admin-listen"].append(endpoint)

    def opt_metrics_listen(self, endpoint: str) -> None:
        """an own listener for /metrics and the health pages, which then exist on no other"""
        self["metrics-listen"].append(endpoint)

    def overrides(self) -> dict[str, Any]:
        """What the flags say, by the path of the setting."""
        return {f"server.{flag.replace('-', '_')}": self[flag] or None for flag in self.lists}

    def postOptions(self) -> None:
        """Called before twistd looks at its pid file."""
        if self["check"]:
            from twisted.internet import reactor as default_reactor

            looking = partial(start_problems, reactor=default_reactor, files=True)
            code, text = check_report(self["config"], os.environ, self.overrides(), looking)
            print(text, file=sys.stderr if code else sys.stdout)
            raise SystemExit(code)
        if sys.platform == "linux" and "twisted.internet.reactor" not in sys.modules:  # nobody chose another
            from llmproxy.wire import reactor

            reactor.install()
        try:
            check_pid_file(self.twistd, sys.argv[1:])
        except AlreadyRunning as e:
            print(f"llmproxy cannot start: {e}", file=sys.stderr)
            raise SystemExit(1) from None

    @property
    def arguments(self) -> list[str]:
        """The arguments of C{twistd} that start a process with these options in the foreground."""
        given = [f"--{flag}={endpoint}" for flag in self.lists for endpoint in self[flag]]
        return [*foreground(self.twistd), "llmproxy", "--config", os.path.abspath(self["config"]), *given]

    @property
    def twistd(self) -> MutableMapping[str, Any]:
        """twistd's own options; none where something else runs this."""
        return {} if self.parent is None else self.parent


def _log_stream(twistd: MutableMapping[str, Any]) -> Any:
    """Where the log goes: what twistd was told, else to the standard output; in the background to C{twistd.log}."""
    if twistd.get("syslog"):
        return QueuedStream(SyslogStream(twistd.get("prefix") or "llmproxy"))
    name = twistd.get("logfile") or ("-" if twistd.get("nodaemon", True) else "twistd.log")
    if name == "-":
        return patient(sys.stdout)
    return LogFile(os.path.abspath(name))


def enter_run_directory(options: Options) -> None:
    """Go where twistd is told to run (C{--rundir}), which it would do only when secrets and logs are made elsewhere."""
    directory = options.twistd.get("rundir") or "."
    if directory != ".":
        options["config"] = os.path.abspath(options["config"])
        os.chdir(directory)
        options.twistd["rundir"] = "."


def makeService(options: Options) -> IService:
    """Twisted's entry. A settings file with anything wrong in it never starts."""
    from twisted.internet import reactor

    worker = appointed(reactor, os.environ)
    before = predecessor(reactor, os.environ)
    use_monotonic_clock(reactor)  # first of all: whatever waits is to wait by it
    if os.getpid() == 1:  # of a container
        reap_orphans(reactor)
    raise_soft_limit()
    spare_address_space()
    try:
        enter_run_directory(options)
        source = SettingsFile(options["config"], os.environ, options.overrides())
        settings = source.load()
        user = User.of(options.twistd)
        check_files(settings)
        output = _log_stream(options.twistd)
        if user is not None:
            prepare_files(settings, user, *([output.path] if isinstance(output, LogFile) else []))
        reopen = getattr(output, "reopen", lambda: None)
        if isinstance(output, QueuedStream):
            reactor.addSystemEventTrigger("after", "shutdown", output.drain)
        if worker is None:
            for warning in environment_warnings(options["config"], os.environ):
                _log.warn("{warning}", warning=warning)
            if worker_count(settings.server.workers) > 1:
                supervisor = _supervisor(settings, source, options, reactor, output, reopen)
                supervisor.listens_early = user is not None
                return supervisor
        manager = notifying(StartReport(options.twistd), reactor)
        pid_file = PidFile(options.twistd, user)
        restart = None if worker else _hot_restart(source, options, reactor, pid_file, manager)
        with uncollected():
            from llmproxy.app import build  # not before: neither a supervisor nor a check of the settings needs it

            daemon = build(
                settings,
                reactor,
                os.environ,
                now=time,
                stream=output,
                source=source,
                worker=worker,
                further=() if restart is None else (pid_file, restart),
            )
        if restart is not None:
            restart.attach(daemon)
        if before is not None:
            daemon.sockets, before.end = before.sockets, reactor.stop
            succeed(before, daemon, pid_file, manager)
        roll = None if restart is None else restart.roll
        Signals(reactor, reload=lambda: daemon.reload(), reopen=reopen, cut=daemon.cut, roll=roll).install()
        if user is not None:
            user.own_tree(settings.state_dir)
            daemon.listens_early = True
        daemon.end_within = end_within
        daemon.start_observer = worker or before or manager
        return daemon
    except SettingsError as e:
        status, why = os.EX_CONFIG, str(e)
        text = why
    except (InvalidStoreURL, ValueError) as e:
        status, why = os.EX_CONFIG, sentence(e) if isinstance(e, InvalidStoreURL) else str(e)
        text = f"llmproxy cannot start: {why}"
    except Exception as e:  # whatever it is, it is said in a sentence
        status, why = 1, sentence(e)
        text = f"llmproxy cannot start: {why}"
    if worker is not None:
        worker.refuse(why)
        raise SystemExit(status)  # the supervisor says it
    if before is not None:
        before.refuse(why)
    print(text, file=sys.stderr)
    raise SystemExit(status)


def _hot_restart(
    source: SettingsFile, options: Options, reactor: Any, pid_file: PidFile, manager: ServiceManager
) -> HotRestart:
    """What puts a fresh process in the place of this one."""

    def load() -> str:
        workers = worker_count(source.load().server.workers)
        return "" if workers == 1 else f"server.workers is {workers} now: from one process to several takes a restart."

    return HotRestart(
        reactor,
        load=load,
        arguments=options.arguments,
        environ=os.environ,
        pid_file=pid_file,
        manager=manager,
        pid=os.getpid,
        stop=reactor.stop,
    )


def _supervisor(
    settings: Settings,
    source: SettingsFile,
    options: Options,
    reactor: Any,
    output: Any,
    reopen: Callable[[], object],
) -> Supervisor:
    from llmproxy.composition.supervision import make_supervisor  # a process that serves has no workers

    log = log_output.observer(settings.logging, output, Redactor([]))
    supervisor, reload = make_supervisor(source.load, reactor, options.arguments, os.environ, log)

    def reopen_all() -> None:
        reopen()
        supervisor.forward("USR1")

    signals = Signals(
        reactor,
        reload=reload.reload,
        reopen=reopen_all,
        cut=supervisor.cut,
        roll=supervisor.roll,
    )
    signals.install()
    supervisor.start_observer = notifying(StartReport(options.twistd), reactor)
    return supervisor
