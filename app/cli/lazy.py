"""Lazy loading: imports the module of a command, and the program behind it, at its first use."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

import typer
import typer.core
import typer.main

from app.cli.exit_codes import ExitCode

# Each entry names a Typer application: `command` of its module, or the one after the colon. Import
# contracts cannot see these strings: tests/cli/test_lazy.py resolves every entry.
COMMANDS: Final = {
    "serve": "app.cli.commands.serve",
    "demo": "app.cli.commands.demo",
    "sandbox": "app.cli.commands.sandbox",
    "doctor": "app.cli.commands.operations:doctor",
    "status": "app.cli.commands.operations:status",
    "health": "app.cli.commands.operations:health",
    "dashboard": "app.cli.commands.operations:dashboard",
    "changes": "app.cli.commands.operations:recent_changes",
    "watch": "app.cli.commands.watch",
    "symbols": "app.cli.commands.symbols",
    "sectors": "app.cli.commands.sectors",
    "universe": "app.cli.commands.market:universe",
    "market": "app.cli.commands.market",
    "scoring": "app.cli.commands.scoring",
    "portfolio": "app.cli.commands.portfolio",
    "history": "app.cli.commands.research:history",
    "locks": "app.cli.commands.controls:locks",
    "watchlist": "app.cli.commands.controls:watchlist",
    "trading": "app.cli.commands.controls:trading",
    "positions": "app.cli.commands.performance:positions",
    "performance": "app.cli.commands.performance",
    "report": "app.cli.commands.performance:report",
    "signals": "app.cli.commands.signals",
    "alerts": "app.cli.commands.alerts",
    "replay": "app.cli.commands.audit:replay",
    "channels": "app.cli.commands.delivery:channels",
    "notifications": "app.cli.commands.delivery:notifications",
    "jobs": "app.cli.commands.jobs",
    "sample-data": "app.cli.commands.operations:sample_data",
    "config": "app.cli.commands.configuration",
    "audit": "app.cli.commands.audit",
    "keys": "app.cli.commands.keys",
    "users": "app.cli.commands.users",
    "sessions": "app.cli.commands.operations:sessions",
    "whoami": "app.cli.commands.operations:whoami",
    "secrets": "app.cli.commands.secrets",
    "tape": "app.cli.commands.tape",
    "backtest": "app.cli.commands.research:backtests",
    "sweep": "app.cli.commands.research:sweeps",
    "validate": "app.cli.commands.research:validation",
    "trials": "app.cli.commands.research:trials",
}
ALIASES: Final = {"configuration": "config"}  # former names, absent from the help
# Programs that load the service, its database or the sandbox: command -> module and function.
PROGRAMS: Final = {
    "serve": ("app.cli.programs.service", "serve"),
    "demo": ("app.cli.programs.demo", "run_demo"),
    "sandbox": ("app.cli.programs.sandbox", "run_sandbox"),
    "doctor": ("app.cli.programs.doctor", "run_checks"),
    "config list": ("app.cli.programs.configuration_reference", "list_settings"),
    "config schema": ("app.cli.programs.configuration_reference", "write_schema"),
    "config document": ("app.cli.programs.configuration_reference", "print_document"),
    "audit verify": ("app.cli.programs.audit", "verify_history"),
    "keys create": ("app.cli.programs.keys", "create_key"),
    "keys list": ("app.cli.programs.keys", "list_keys"),
    "keys rotate": ("app.cli.programs.keys", "rotate_key"),
    "keys revoke": ("app.cli.programs.keys", "revoke_key"),
    "secrets new-key": ("app.cli.programs.secrets", "print_new_key"),
    "secrets list": ("app.cli.programs.secrets", "list_secrets"),
    "secrets rotate": ("app.cli.programs.secrets", "rotate_secrets"),
    "secrets discard": ("app.cli.programs.secrets", "discard_secrets"),
    "users add": ("app.cli.programs.users", "add_user"),
    "users list": ("app.cli.programs.users", "list_users"),
    "users disable": ("app.cli.programs.users", "disable_user"),
    "users enable": ("app.cli.programs.users", "enable_user"),
    "users password": ("app.cli.programs.users", "set_password"),
    "backtest": ("app.cli.programs.backtest", "run"),
    "sweep": ("app.cli.programs.sweep", "run"),
    "validate": ("app.cli.programs.backtest", "validate_scores"),
    "history download": ("app.cli.programs.history", "download_history"),
    "trials list": ("app.cli.programs.trials", "list_trials"),
    "trials show": ("app.cli.programs.trials", "show_trials"),
    "tape record": ("app.cli.programs.recording", "record_tape"),
    "tape replay": ("app.cli.programs.recording", "replay_tape"),
}


class LazyGroup(typer.core.TyperGroup):
    """Group of COMMANDS that imports the module of a command at its first use."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command; None for an unknown name, so that Typer proposes a similar one."""
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)
            return None
        if cmd_name not in self.commands:
            command = typer.main.get_command(load_application(COMMANDS[cmd_name]))
            command.name = cmd_name
            self.add_command(command, cmd_name)
        return self.commands[cmd_name]


def lazy_module(name: str) -> ModuleType:
    """Returns a module that is loaded at the first use of one of its names."""
    if name in sys.modules:
        return sys.modules[name]
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name)
    loader = LazyLoader(spec.loader)
    spec.loader = loader
    module = sys.modules[name] = module_from_spec(spec)
    loader.exec_module(module)
    return module


def load_application(entry: str) -> typer.Typer:
    """Returns the Typer application of an entry of COMMANDS."""
    module, _, name = entry.partition(":")
    application: typer.Typer = getattr(import_module(module), name or "command")
    return application


def load_program(command: str) -> Callable[..., None]:
    """Returns the function that runs a command of PROGRAMS."""
    module, function = PROGRAMS[command]
    try:
        program: Callable[..., None] = getattr(import_module(module), function)
    except KeyboardInterrupt:  # loading takes seconds: exit without a traceback
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    return program
